"""Fewer regions: the means of a tower's regions over the cells of a coarser grid (our extension).

Kept features are that much smaller, and heads that read regions that much faster.

Legend: B images, M regions of the tower, d width.
"""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import ImageFeatures, ImageTower


class CoarserRegions(ImageTower):
    """An image tower with `grid` in place of its own.

    Raises:
        UserError: the grid has more rows or columns than the tower's.
    """

    def __init__(self, tower: ImageTower, grid: tuple[int, int]) -> None:
        super().__init__()
        if not all(0 < wanted <= own for wanted, own in zip(grid, tower.grid, strict=True)):
            rows, columns = tower.grid
            raise UserError(
                f"backbone.region_grid={list(grid)}: this image tower has {rows} rows and {columns} columns of regions "
                "at this image size; take as many or fewer"
            )
        self.tower, self.grid = tower, grid

    def forward(self, images: Tensor) -> ImageFeatures:
        features: ImageFeatures = self.tower(images)
        cells = features.regions.mT.unflatten(-1, self.tower.grid)  # (B, d, rows, columns)
        return ImageFeatures(features.pooled, adaptive_avg_pool2d(cells, self.grid).flatten(2).mT)

    def blocks(self) -> list[nn.Module]:
        return self.tower.blocks()

    def head(self) -> list[nn.Parameter]:
        return self.tower.head()
