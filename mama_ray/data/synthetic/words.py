"""The words of the captions: several for every fact, none shared by two facts, so a caption's facts can be read back.

The first word of each is the plain one; it is also the answer to questions.
"""

SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "wedge"),
    "star": ("star", "pentagram"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop", "doughnut"),
    "crescent": ("crescent", "moon"),
    "heart": ("heart", "love heart"),
}
COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "white": ("white", "snowy"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

# Finite form and participle of each way to tell a motion.
MOTION_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "left": (
        ("moves left", "moving left"),
        ("slides to the left", "sliding to the left"),
        ("drifts leftward", "drifting leftward"),
    ),
    "right": (
        ("moves right", "moving right"),
        ("slides to the right", "sliding to the right"),
        ("drifts rightward", "drifting rightward"),
    ),
    "up": (("moves up", "moving up"), ("rises", "rising"), ("climbs upward", "climbing upward")),
    "down": (("moves down", "moving down"), ("falls", "falling"), ("sinks downward", "sinking downward")),
    "orbits": (("goes round", "going round"), ("loops around", "looping around"), ("orbits", "orbiting")),
    "grows": (("grows", "growing"), ("expands", "expanding"), ("swells up", "swelling up")),
    "shrinks": (("shrinks", "shrinking"), ("contracts", "contracting"), ("dwindles", "dwindling")),
    "blinks": (("blinks", "blinking"), ("flashes", "flashing"), ("flickers", "flickering")),
}

# What stands for a fact that the caption leaves out.
ANY_SHAPE_WORDS = ("object", "thing", "shape")
ANY_MOTION_WORDS = (("is seen", "being seen"), ("does something", "doing something"))

# {a} is "a small red circle"; {moves} and {moving} are the two forms of its motion.
ONE_TEMPLATES = (
    "{a} {moves}",
    "{a} is {moving}",
    "there is {a} {moving}",
    "a video of {a} {moving}",
    "{a} {moves} on the screen",
    "we see {a} that {moves}",
)
# {a} acts first, {b} second; some tell the second event first.
ORDERED_TEMPLATES = (
    "{a} {moves_a} then {b} {moves_b}",
    "first {a} {moves_a} and then {b} {moves_b}",
    "{a} {moves_a} before {b} {moves_b}",
    "{b} {moves_b} after {a} {moves_a}",
    "{a} {moves_a} followed by {b} {moving_b}",
    "after {a} {moves_a} {b} {moves_b}",
)
UNORDERED_TEMPLATES = (
    "{a} {moves_a} and {b} {moves_b}",
    "there are {a} {moving_a} and {b} {moving_b}",
)

# The same as narrations of what the wearer of a camera, #C, sees.
FIRST_PERSON_ONE_TEMPLATES = (
    "#C C sees {a} {moving}",
    "#C C watches {a} {moving}",
    "#C C looks at {a} that {moves}",
    "#C C follows {a} {moving}",
)
FIRST_PERSON_ORDERED_TEMPLATES = (
    "#C C sees {a} {moving_a} then {b} {moving_b}",
    "#C C watches {a} {moving_a} before {b} {moving_b}",
    "#C C sees {b} {moving_b} after {a} {moving_a}",
    "#C C looks at {a} {moving_a} and then {b} {moving_b}",
)
FIRST_PERSON_UNORDERED_TEMPLATES = (
    "#C C sees {a} {moving_a} and {b} {moving_b}",
    "#C C looks at {a} {moving_a} and {b} {moving_b}",
)
