"""Word lists for the verdicts: words for visible things, and the function words of English."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words("""
a an the and or but nor of in on at by to for from with without within into onto over under above below between
behind beside near along around across through against among upon about as than that which who whose whom this
these those it its it's they them their he his she her we our you your is are was were be been being has have had
do does can may might could will would should must not no also often usually typically commonly sometimes mostly
generally frequently always very more most many several some any each both all one two three four other such like so
while when where there then if up down out off only just used seen found
""")

# Shapes, colours, materials, surfaces, positions, and parts that many things share.
VISUAL_WORDS = _words("""
round rounded circular oval square rectangular triangular cylindrical conical spherical curved straight flat thin
thick wide narrow broad long short tall shallow heavy slim slender
sleek compact elongated pointed sharp blunt bent folded hollow solid closed arched domed tapered angular box
boxy tube tubular cube ball ring disc disk cone bar rod strip stripe striped spotted patterned checked dotted
red orange yellow green blue purple violet pink brown black white grey gray silver gold golden beige tan dark
bright pale colorful colourful colored coloured color colour shade transparent translucent opaque shiny
glossy matte reflective metallic rusty smooth rough soft hard fluffy fuzzy furry hairy woolly bushy curly silky
scaly leathery wrinkled textured ribbed ridged bumpy polished carved ornate
wood wooden metal metallic steel iron aluminium aluminum brass copper plastic glass rubber leather fabric cloth
cotton wool woolen silk paper cardboard concrete brick stone marble ceramic porcelain clay canvas nylon rope chain
fur feather feathers plumage coat mane skin scale scales hide fleece
head face eye eyes ear ears nose snout muzzle mouth beak bill tooth teeth tusk horn horns antler neck belly body
leg legs foot feet paw paws hoof hooves claw claws tail wing wings fin fins trunk whisker whiskers hair beard arm arms
hand hands shoulder waist knee skin
handle grip knob button buttons key keys lid cap cork spout rim edge corner base stand frame panel screen display
dial pointer hinge door doors drawer shelf window windows windshield windscreen roof wall walls floor tower dome
column pillar arch stair stairs chimney balcony cabin cockpit fuselage hull deck mast sail sails bow stern keel oar
propeller engine wheel wheels tire tires tyre tyres spoke spokes pedal pedals handlebar handlebars saddle seat seats
backrest armrest armrests cushion cushions pillow pillows headlight headlights taillight bumper grille mirror mirrors
hood exhaust bonnet fender rail rails track tracks carriage carriages locomotive
strap straps belt buckle zipper pocket pockets sleeve sleeves collar hem lace laces sole heel brim hat cap helmet
shirt jacket trousers pants jeans skirt dress shorts shoe shoes boot boots sandal sneakers bag backpack glasses scarf
tie uniform logo badge button hooded plaid
leaf leaves stem stems petal petals flower flowers branch branches root roots bark soil pot grass trees tree bush
lawn seed peel crust slice sauce cheese topping toppings filling
blade blades string strings cord cable wire antenna lens tripod nozzle pipe tap basin bowl plate cup saucer mug
bottle jar pole post lamp bulb shade flame candle
water sea lake river beach sand waves rock rocks snow ice mountain mountains hill hills road roads
street streets bridge runway runways tarmac pitch goal net marking markings fence hedge
terrain cliff cliffs forest forests meadow meadows shrubs field fields ground asphalt gravel lane lanes curve curves
curved parallel crossing shore coast bay canal bank dune dunes
ponytail bun braid blonde sunglasses socks sweater hoodie coat vest blouse purse suitcase umbrella
parked rows row grid cluster clustered scattered dense sparse aerial overhead viewed above roofs rooftops buildings
building houses house cars boats ships ship planes plane containers crane cranes tank tanks dock docks pier harbor
table tables chair chairs sofa bed desk rug carpet curtain curtains vase monitor
""")

# Praise and mood: they describe nothing visible, and count against a description.
FLOWERY_WORDS = _words("""
majestic magnificent beautiful stunning elegant graceful mysterious iconic luxurious delicate intricate exquisite
breathtaking captivating captivated timeless unique remarkable wonderful lovely charming refined expressive humble
beauty beloved amazing endless distinctive distinct various grandeur majesty splendor
""")
