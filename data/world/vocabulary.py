"""The built-in vocabulary: fields of life, topics with the things that belong to them, and facets of a topic.

A topic consists of three things, and the first of them is the topic itself. Each thing has three names, which are
synonyms in this world. Some words name things of several topics (bass, crane, jam, pitch) and make queries ambiguous.
"""

from typing import NamedTuple


class Field(NamedTuple):
    """A field of life, with its names and its topics; a topic is indexed by [thing][name]."""

    names: tuple[str, ...]
    topics: tuple[tuple[tuple[str, ...], ...], ...]


class Facet(NamedTuple):
    """An aspect of a topic that users search for.

    If `before` is true, the word precedes the topic ("cheap sofa"), else it follows the topic ("sofa repair").
    """

    names: tuple[str, ...]
    before: bool


FACETS = (
    Facet(("guide", "tutorial", "lesson", "walkthrough"), False),
    Facet(("repair", "fix", "mend", "restore"), False),
    Facet(("review", "test", "verdict", "comparison"), False),
    Facet(("budget", "cheap", "affordable", "bargain"), True),
    Facet(("beginner", "starter", "novice", "easy"), True),
    Facet(("history", "origins", "story", "past"), False),
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FILLERS = _words(
    "today weekend daily little great small whole favourite local classic weekly friends minutes video morning "
    "evening season honest simple useful careful complete short long new old fresh popular modern secret"
)
CONNECTORS = _words("with and for in from without near by")


def _field(names: str, topics: str) -> Field:
    lines = topics.strip().splitlines()
    return Field(
        tuple(names.split()), tuple(tuple(tuple(thing.split()) for thing in line.split("/")) for line in lines)
    )


FIELDS = (
    _field(
        "home house household",
        """
        sofa couch settee / cushion pillow padding / upholstery fabric cover
        lamp lantern light / bulb filament led / shade dimmer switch
        curtain drape blind / rail rod track / lining hem pleat
        carpet rug mat / stain spill mark / shampoo cleaner foam
        wardrobe closet cupboard / hanger hook peg / drawer shelf tray
        mattress bed bunk / slat frame base / spring coil topper
        paint emulsion coating / roller brush sponge / primer undercoat sealer
        faucet tap spout / washer gasket seal / leak drip seep
        boiler furnace heater / radiator convector panel / thermostat valve timer
        window pane glazing / sash hinge latch / draught gap chill
        """,
    ),
    _field(
        "cooking kitchen culinary",
        """
        bread loaf sourdough / knead stretch fold / crust crumb rise
        soup broth chowder / simmer boil stew / ladle pot cauldron
        pasta noodle spaghetti / sauce ragu pesto / drain strain toss
        cake sponge gateau / icing frosting glaze / tin mould pan
        coffee espresso brew / grinder mill burr / foam froth crema
        curry masala korma / spice cumin turmeric / rice grain pilaf
        salad slaw greens / dressing vinaigrette oil / lettuce rocket cress
        jam preserve marmalade / pectin sugar syrup / jar lid canning
        steak beef sirloin / sear grill broil / marinade rub brine
        cheese cheddar brie / rind wax mould / cracker chutney board
        """,
    ),
    _field(
        "garden yard outdoors",
        """
        rose shrub bush / prune trim cut / thorn petal bloom
        lawn grass turf / mower scythe strimmer / moss weed clover
        tomato vine truss / stake cane trellis / blight rot wilt
        compost mulch humus / bin heap tumbler / worm microbe fungus
        pond pool basin / pump filter fountain / algae duckweed slime
        hedge privet screen / shears trimmer clipper / bark twig stem
        bulb tuber corm / tulip daffodil crocus / spring thaw bud
        herb basil mint / pot planter trough / seedling sprout cutting
        greenhouse polytunnel conservatory / vent louvre flap / humidity warmth climate
        bee hive apiary / honey nectar comb / swarm colony queen
        """,
    ),
    _field(
        "music audio melody",
        """
        guitar ukulele lute / string fret chord / strum pick pluck
        piano keyboard clavier / pedal damper hammer / scale arpeggio octave
        drum snare percussion / stick mallet beater / rhythm beat groove
        violin fiddle viola / bow rosin horsehair / bridge peg scroll
        trumpet cornet bugle / mouthpiece valve mute / breath lip embouchure
        singing vocals voice / pitch tone tuning / warmup range register
        vinyl record album / turntable stylus cartridge / sleeve crate label
        bass contrabass upright / amplifier cabinet speaker / slap walk riff
        choir chorus ensemble / harmony canon descant / conductor baton rehearsal
        synthesizer modular sequencer / oscillator envelope waveform / patch preset cable
        """,
    ),
    _field(
        "sport athletics fitness",
        """
        running jogging sprint / shoe trainer sneaker / stride cadence pace
        cycling bicycle bike / saddle seat handlebar / gear chain derailleur
        swimming crawl backstroke / goggles cap fins / lane lap length
        tennis squash badminton / racket bat paddle / serve volley smash
        football soccer futsal / goal striker winger / pitch field turf
        climbing bouldering mountaineering / rope harness carabiner / grip hold ledge
        yoga pilates stretching / mat block strap / pose posture balance
        boxing sparring kickboxing / glove wrap pad / jab hook punch
        skiing snowboard slalom / slope piste powder / wax edge binding
        golf putting driving / club iron wedge / green bunker hole
        """,
    ),
    _field(
        "travel trip tourism",
        """
        hotel hostel lodge / booking reservation checkin / room suite dorm
        flight plane airline / luggage suitcase baggage / airport terminal gate
        beach coast shore / sand dune shingle / wave tide surf
        train railway locomotive / ticket pass fare / platform carriage sleeper
        camping tent bivouac / stove burner campfire / hammock bedroll groundsheet
        museum gallery exhibit / painting sculpture canvas / curator collection archive
        desert oasis sahara / camel caravan nomad / heat drought mirage
        island atoll archipelago / ferry boat catamaran / lagoon reef bay
        mountain summit peak / trail path track / hut refuge shelter
        safari savanna reserve / lion elephant giraffe / jeep ranger binoculars
        """,
    ),
    _field(
        "pets animals creatures",
        """
        dog puppy hound / leash lead collar / bark growl whine
        cat kitten feline / litter tray sand / purr meow claw
        horse pony mare / saddle bridle stirrup / hoof mane trot
        aquarium fishtank bowl / goldfish guppy tetra / filter pump heater
        parrot budgie cockatoo / cage perch aviary / feather beak wing
        rabbit bunny hare / hutch burrow run / carrot hay pellet
        chicken hen rooster / egg yolk shell / coop nest brood
        tortoise turtle terrapin / shell carapace scute / lamp basking heat
        snake python viper / vivarium terrarium enclosure / scale shed skin
        hamster gerbil mouse / wheel tunnel ball / bedding sawdust straw
        """,
    ),
    _field(
        "health wellness medical",
        """
        sleep insomnia rest / nap doze snooze / dream nightmare apnea
        back spine lumbar / ache pain sore / posture chair massage
        teeth dental gums / brush floss paste / cavity filling crown
        skin complexion dermis / cream lotion balm / rash eczema acne
        diet nutrition meal / protein fibre vitamin / calorie portion fasting
        eye vision sight / lens glasses spectacles / squint glare blur
        cold flu cough / fever temperature chill / tissue lozenge syrup
        stress anxiety worry / breath meditation calm / pulse tension panic
        allergy hayfever sneeze / pollen dust dander / antihistamine inhaler spray
        knee joint ankle / sprain tear strain / brace bandage ice
        """,
    ),
    _field(
        "computer tech digital",
        """
        laptop notebook ultrabook / battery charger adapter / screen display panel
        printer plotter scanner / ink toner cartridge / paper tray jam
        mouse trackball touchpad / cursor pointer click / scroll button wheel
        router modem wifi / signal antenna bandwidth / cable ethernet fibre
        phone mobile handset / camera lens flash / app widget icon
        password login credential / hacker malware phishing / encryption firewall key
        spreadsheet workbook table / formula macro pivot / chart graph plot
        coding programming software / bug defect error / compiler debugger editor
        console gamepad joystick / game level quest / score boss loot
        backup archive snapshot / disk drive storage / cloud server sync
        """,
    ),
    _field(
        "crafts handmade hobby",
        """
        knitting crochet weaving / yarn wool thread / needle hook loom
        pottery ceramics clay / wheel kiln glaze / bowl vase mug
        sewing stitching tailoring / pattern seam hem / bobbin scissors pin
        woodwork carpentry joinery / saw chisel plane / oak pine walnut
        origami papercraft folding / crease fold flap / crane swan lily
        candle taper wick / wax paraffin soy / scent fragrance vanilla
        jewellery necklace bracelet / bead gem pearl / clasp wire solder
        watercolour gouache acrylic / easel palette canvas / wash glaze tint
        calligraphy lettering script / nib quill pen / ink parchment vellum
        leather hide suede / belt wallet pouch / awl punch rivet
        """,
    ),
    _field(
        "motoring vehicle automotive",
        """
        tyre wheel rim / puncture flat leak / jack wrench lug
        engine motor cylinder / oil lubricant grease / piston valve camshaft
        motorbike scooter moped / helmet jacket glove / throttle clutch kickstand
        caravan motorhome camper / awning canopy porch / towing hitch trailer
        electric hybrid plugin / charging socket cable / range battery mileage
        brake disc drum / pad caliper rotor / squeal judder fade
        boat dinghy yacht / sail mast rigging / anchor mooring harbour
        tractor plough harvester / field crop acre / hydraulic loader attachment
        truck lorry van / cargo freight load / pallet crane forklift
        windscreen windshield wiper / chip crack scratch / demist defrost spray
        """,
    ),
    _field(
        "nature science discovery",
        """
        star galaxy nebula / telescope binoculars observatory / orbit eclipse comet
        volcano crater caldera / lava magma ash / eruption quake tremor
        storm hurricane tornado / wind gust gale / thunder lightning hail
        fossil dinosaur skeleton / amber sediment shale / dig excavation trowel
        whale dolphin seal / ocean sea deep / sonar migration pod
        rock mineral crystal / quartz granite basalt / hammer loupe specimen
        bird songbird warbler / nest feather egg / migration flock roost
        mushroom fungus toadstool / spore gill mycelium / foraging basket knife
        river stream brook / trout salmon otter / dam weir bridge
        forest woodland grove / oak beech birch / squirrel deer badger
        """,
    ),
)
