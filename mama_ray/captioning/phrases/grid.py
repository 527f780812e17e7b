"""Captions that are about the grid of frames, not about what the frames show."""

import re

from mama_ray.captioning.phrases.patterns import PICTURE, AnyOf

_PICS = r"(?:images|pictures|pics|photos|photographs|frames|panels|screenshots|snapshots|stills|thumbnails)"
_NUMBER = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|twenty|\d{1,2}"
    r"|a\s+dozen|several|multiple|many|various|numerous|different|a\s+(?:total|number|variety|few)\s+(?:of\s+)?"
    r"(?:\w+\s+)?)"
)
_HAN_NUMBER = r"[\d一二两三四五六七八九十多几]+"
_WORDS = r"(?:(?!(?:an?|the|his|her|their|its|and|is|are)\b)[\w-]+\s+){0,3}?"
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\d{1,2}(?:st|nd|rd|th))"
)
_SIDE = r"(?:top|upper|bottom|lower|middle|cent(?:er|re)|central)"
_SHEET = (
    r"(?:collages?|photo[\s-]?grids?|image[\s-]?grids?|video[\s-]?grids?|contact\s+sheets?|storyboards?"
    r"|photo[\s-]?strips?"
    r"|film[\s-]?strips?|comic\s+strips?|triptychs?|photo\s*montages?)"
)
_GATHERED = (
    rf"(?:{_SHEET}|grids?|mosaics?|montages?|matrix|arrays?|composites?|compilations?|series|sequences?|sets?"
    r"|collections?|rows?|columns?|combinations?|slideshows?|arrangements?|assortments?)"
)
# Where a sentence about the whole picture begins, or goes on after its verb.
_SUBJECT = (
    r"(?:(?:the|this|these|that)\s+)?(?:whole\s+|entire\s+|provided\s+|given\s+)?"
    rf"(?:{PICTURE}|videos?|clips?|footage|screen|scenes?|sequence|collage|grid|montage|composition|layout)"
)
_VERB = (
    r"(?:is|are|shows?|showing|contains?|consists?\s+of|features?|presents?|displays?|depicts?|includes?|has|have"
    r"|comprises?|captures?|is\s+(?:composed|made\s+up|comprised)\s+of|appears?\s+to\s+be|seems?\s+to\s+be)"
)
_START = (
    rf"(?:^\W*|[.!?;:]\s+|\b{_SUBJECT}\s+{_VERB}\s+|\b(?:here|there)\s+(?:is|are)\s+|\b(?:we|you)\s+(?:can\s+)?see\s+)"
)
# Pictures that hang somewhere are things of the video.
_THINGS = (
    r"(?![^.]*\b(?:on|onto|above|over|behind|against|along|across|near|beside|around)\s+(?:the|a|an|his|her|their"
    r"|its)\s+"
    r"(?:\w+\s+){0,2}(?:walls?|tables?|desks?|shelf|shelves|fridge|refrigerator|floor|doors?|boards?|mantel(?:piece)?"
    r"|fireplace|windows?|bed|couch|sofa|piano|easel|monitors?|phones?|computers?|laptops?|cards?|pages?|books?))"
    r"(?!\s+of\s+(?:(?:an?|the)\s+)?(?:honey|bees|brood|wood|metal|glass|bowling|snooker|pool)\b)"
    r"(?!\s+(?:are|is|hang|hangs|hung|lie|lies|being)\s+(?:\w+ing|\w+ed|on)\b)"
)

_GRID = AnyOf(
    rf"{_START}(?:an?\s+|the\s+|this\s+)?{_WORDS}{_SHEET}\s+(?:of|showing|shows?|featuring|features?|displaying"
    r"|displays?|depicting|depicts?|containing|contains?|with|that|which|made|consisting|composed)\b",
    rf"\b(?:an?|the|this)\s+{_WORDS}(?:grid|mosaic|matrix)\s+of\s+{_WORDS}(?:{_PICS}|videos|video\s+(?:frames|clips)"
    rf"|scenes"
    r"|shots|views)\b",
    rf"{_START}(?:an?\s+|the\s+|this\s+)?{_WORDS}{_GATHERED}\s+(?:of|with|containing|showing)\s+{_WORDS}"
    rf"(?:{_PICS}|video\s+frames)\b{_THINGS}",
    rf"\b(?:is|are)\s+an?\s+{_WORDS}{_SHEET}(?=\W*$|\s+(?:of|that|which|with|showing)\b|[,.;])",
    rf"{_START}(?:an?\s+|the\s+|these\s+|those\s+|all\s+)?(?:\w+ly\s+)?{_NUMBER}\s+{_WORDS}{_PICS}\b{_THINGS}",
    rf"\b(?:the|these|all)\s+{_NUMBER}\s+(?:\w+\s+)?{_PICS}\s+(?:show|depict|capture|display|feature|are\s+of"
    rf"|illustrate"
    r"|represent|present)\b",
    rf"\b(?:total\s+of|consist(?:s|ing)?\s+of|composed\s+of|made\s+up\s+of)\s+{_NUMBER}\s+{_WORDS}"
    rf"(?:{_PICS}|sections|squares|cells|tiles|quadrants)\b",
    rf"{_SUBJECT}\s+(?:is|are|has\s+been)\s+(?:\w+ly\s+)?(?:divided|split|separated|arranged|organi[sz]ed|laid\s+out"
    rf"|broken\s+(?:down|up))\s+(?:up\s+)?in(?:to)?\s+(?:an?\s+)?{_WORDS}(?:{_PICS}|sections|parts|squares|cells|tiles"
    r"|quadrants|segments|grid|rows?|columns?|collage|\d+\s*(?:x|\u00d7|by)\s*\d+)\b",
    rf"\b{_PICS}\s+(?:\w+\s+){{0,6}}?(?:arranged|organi[sz]ed|laid\s+out|put|placed|presented|shown|displayed|combined"
    rf"|stitched|tiled)\s+(?:together\s+)?in(?:to)?\s+(?:an?\s+)?{_WORDS}(?:grid|rows?|columns?|collage|mosaic)\b",
    rf"\b{_SIDE}[\s-]*(?:(?:left|right|row|column|cent(?:er|re)|middle)(?:[\s-]+hand)?(?:\s+(?:corner|row|column))?"
    rf"|most|row|column)"
    rf"\s+{PICTURE}\b",
    rf"\b{_SIDE}\s+(?:image|picture|photo|photograph|screenshot|snapshot|thumbnail)s?\b{_THINGS}",
    rf"\b(?:left|right)[\s-]*(?:most|hand)?\s+(?:image|picture|photo|photograph|screenshot|snapshot"
    rf"|thumbnail)s?\b{_THINGS}",
    rf"(?:^\W*|[.!?;:,]\s+|\b(?:and|while|then)\s+)(?:in|on|at)\s+(?:the\s+)?{_SIDE}[\s-]*(?:left|right"
    rf"|most)?\s+(?:row|column)"
    r"\b(?!\s+of\s+(?!(?:an?\s+|the\s+|this\s+)?(?:image|picture|photo|frame|panel|grid|collage|video|screen)))",
    rf"\b(?:in|from|of|between|at|to|until|with)\s+(?:the|each|every)\s+(?:very\s+)?(?:{_ORDINAL}|last|final|next|other"
    rf"|previous|following|remaining)\s+(?:(?:and|to|through)\s+(?:the\s+)?(?:{_ORDINAL}|last|final)\s+)?"
    rf"(?:{_NUMBER}\s+)?{PICTURE}\b{_THINGS}(?!\s+of\s+the\s+(?:match|game|bowling))",
    rf"(?:^\W*|[.!?;:,]\s+|\b(?:and|while|then)\s+)the\s+(?:very\s+)?(?:{_ORDINAL}|last|final|next|other|remaining)\s+"
    rf"(?:{_NUMBER}\s+)?{PICTURE}\s+(?:is|are|shows?|depicts?|captures?|displays?|features?|has|have|of)\b",
    rf"\b(?:{_ORDINAL}|{_SIDE}|last)\s+(?:row|column)\s*,?\s*(?:and\s+|of\s+|in\s+)?(?:the\s+)?(?:{_ORDINAL}|last"
    rf"|left|right"
    rf"|middle)\s+(?:row|column|{PICTURE})\b",
    rf"\beach\s+(?:individual\s+|small\s+|single\s+)?{PICTURE}\s+(?:shows?|showing|depict\w*|captur\w*|featur\w*"
    rf"|display\w*|contain"
    r"\w*|represent\w*|highlight\w*|is|has|of|in\s+the)\b",
    rf"\b(?:in|of|across|throughout|from)\s+(?:each|every"
    rf"|all)\s+(?:(?:of\s+)?the\s+)?(?:{_NUMBER}\s+)?{PICTURE}\b{_THINGS}",
    r"^\W*(?:the|this)\s+(?:\w+\s+)?grid\s+(?:shows|displays|depicts|contains|features|consists|captures)\b",
    r"\b(?:shown|seen|captured|depicted|displayed|presented|demonstrated|illustrated|featured"
    r"|pictured)\s+(?:[\w-]+\s+){0,8}?"
    rf"(?:in|through|across|over)\s+(?:(?:an?|the|this)\s+{_WORDS}{_GATHERED}\s+of\s+{_WORDS}|{_NUMBER}\s+{_WORDS})"
    rf"{_PICS}\b{_THINGS}",
    rf"\b(?:in|across|throughout|over)\s+(?:the\s+|all\s+|these\s+)?{_NUMBER}\s+(?:[\w-]+\s+)?{_PICS}\b{_THINGS}",
    rf"\b(?:in|across|throughout)\s+(?:the|this|these)\s+{_GATHERED}\s+of\s+{_WORDS}{_PICS}\b{_THINGS}",
    r"\b(?:in|of|across|throughout)\s+(?:the|this)\s+(?:photo\s+|image\s+|picture\s+)?(?:collage|storyboard"
    r"|contact\s+sheet)\b",
    rf"\b(?:{_NUMBER})[\s-](?:image|picture|photo|panel|frame)s?[\s-](?:collage|grid|layout|comic|sequence|montage"
    rf"|series|image)\b",
    rf"(?:^\W*|[.!?;:,]\s+)(?:across|throughout)\s+(?:the|these|all)\s+(?:{_NUMBER}\s+)?{_PICS}\b{_THINGS}",
    rf"{_START}(?:an?\s+|the\s+)?(?:groups?|bunch(?:es)?)\s+of\s+(?:{_NUMBER}\s+|small\s+)?{_PICS}\b{_THINGS}",
    r"^\W*(?:the|these|all|all\s+the)\s+(?:photos|photographs|pictures|pics|frames|screenshots|snapshots|thumbnails)"
    r"\s+(?:show|depict|capture|feature|display|illustrate|portray|present)\b",
    rf"\b(?:each|every|all)\s+(?:one\s+)?(?:of\s+)?(?:the\s+|these\s+)?(?:{_NUMBER}\s+)?{PICTURE}\s+(?:shows?|depicts?"
    r"|captures?|features?|displays?|illustrates?|highlights?|represents?)\b",
    r"\b(?:multi(?:ple)?|two|three|four|six|eight|nine|twelve|\d{1,2})[\s-]panel(?:l?ed)?\s+(?:image|picture|photo|video"
    r"|comic|layout|collage|grid)s?\b|\btiled\s+(?:image|picture|photo|video)\b",
    rf"^\W*(?:an?\s+|the\s+)?{_WORDS}{_SHEET}\W*$",
    rf"\b{_PICS}\s+(?:in|of|within)\s+(?:the|this|an?)\s+(?:\w+\s+)?(?:grid|collage)\b",
    rf"\b(?:{_ORDINAL}|{_SIDE}|last)\s+(?:row|column)\s+(?:shows|depicts|displays|captures|illustrates|features)\b",
    rf"\b(?:{_ORDINAL}|{_SIDE}|last)\s+(?:row|column)s?\s+of\s+{_PICS}\b{_THINGS}",
    r"\bcomposite\s+(?:image|picture|photo|photograph|video)\b|\bphoto\s+(?:series|sequence|set)\b",
    r"^\W*(?:the\s+)?(?:frames|screenshots|snapshots|stills|thumbnails)\s+(?:of|from)\b",
    r"\barranged\s+in\s+(?:\w+\s+){0,2}rows\s+and\s+(?:\w+\s+)?columns\b",
    r"\b\d\s*(?:x|\u00d7|by)\s*\d\s+(?:(?:image|picture|photo|frame|video)\s+)?(?:grid|layout|collage|matrix|arrangement)\b",
    r"\b(?:two|three|four|five)[\s-]by[\s-](?:two|three|four|five)\s+(?:grid|layout|collage|matrix|arrangement)\b",
    r"\bfrom\s+(?:the\s+)?left\s+to\s+(?:the\s+)?right\s*(?:,|and"
    r"|,\s*and)\s*(?:from\s+)?(?:the\s+)?top\s+to\s+(?:the\s+)?bottom\b",
    r"\bfrom\s+(?:the\s+)?top\s+(?:left|right)\s+to\s+(?:the\s+)?bottom\s+(?:left|right)\s*[,:]",
    rf"\b{_PICS}\s+(?:are\s+|is\s+)?(?:in|as|form(?:ing)?)\s+an?\s+{_WORDS}(?:grid|collage|mosaic)\b",
    # Chinese
    r"(?:拼贴|九宫格|九宮格)(?:图|圖|画|照)?(?:片|像)?(?:展示|显示|由|，|。|,|$|包含|呈现)",
    r"(?:拼圖|拼图|拼接图)(?:片|像)?(?:中|里)?(?:展示|显示|由|包含|呈现)",
    rf"由{_HAN_NUMBER}(?:张|幅|个|帧)(?:不同的?)?(?:图片|图像|照片|画面|帧|截图|小图)",
    rf"(?:共有?|一共有?|总共有?|包含了?|图中有|画面中有|这)(?:是)?{_HAN_NUMBER}(?:张|幅|帧)(?:不同的?|连续的?)?"
    r"(?:图片|图像|照片|画面|截图|小图|帧)?(?:组成|拼|排列|展示|显示|分别|，每|。|$)",
    rf"{_HAN_NUMBER}帧",
    r"(?:网格|方格)(?:图|布局|状)?(?:中|里|的图|由|排列|展示|显示|包含)",
    rf"第{_HAN_NUMBER}(?:张|幅|帧|格)(?:的)?(?:图片|图像|图|照片|画面)?(?:中|里|上|是|显示|展示|,|，)",
    rf"第{_HAN_NUMBER}行(?:的)?第{_HAN_NUMBER}列",
    r"(?:左上|右上|左下|右下|左侧|右侧|左边|右边|中间|最上|最下|上排|下排|中排|顶部|底部)(?:角|方|面)?(?:的)?(?:那)?"
    r"(?:张|幅|格)?(?:的)?(?:图片|图像|照片|小图|子图|图)(?:中|里|是|显示|展示|,|，)",
    r"(?:每|各)(?:一)?(?:张|幅|帧|个)(?:图片|图像|照片|画面|小图|帧|图)(?:都|均|里|中|是|显示|展示|,|，)",
    r"(?:^|[，,。：]|图片?|图像|照片|视频|画面)(?:中|里)?(?:是|显示了?|展示了?|包含了?|为|由)?一(?:系列|组|连串)(?:的)?"
    r"(?:图片|图像|照片|画面|截图)",
    # Japanese
    rf"{_HAN_NUMBER}枚の(?:異なる|連続した)?(?:画像|写真|フレーム|コマ|スクリーンショット)"
    r"(?:の(?:コラージュ|グリッド|集ま)|が(?:並|表示|含)|で|から|を(?:並べ|組み|集め)|$|。|、)",
    r"(?:画像|写真|フレーム|コマ)(?:の|を|が)?(?:並べた|組み合わせた|集めた|並んだ|配置された)?(?:コラージュ|グリッド"
    r"|モザイク)",
    r"(?:コラージュ|グリッド)(?:画像|写真|状|形式)?(?:で|です|には|に|は|の中|。|$)",
    rf"(?:左上|右上|左下|右下|中央|上段|下段|中段|左端|右端|最初|最後|{_HAN_NUMBER}番目)の(?:画像|写真|コマ|フレーム"
    rf"|パネル"
    r"|枠)(?:で|に|は|が)",
    r"(?:一連|複数|それぞれ|各)の?(?:画像|写真|フレーム|コマ)(?:では?|は|には)",
)  # fmt: skip

# Words without which none of the patterns can be found: most captions need no more than this.
_GRID_HINT = re.compile(
    r"image|pic|photo|frame|panel|screenshot|snapshot|still|thumbnail|collage|grid|sheet|board|strip|triptych|montage"
    r"|mosaic"
    r"|matri|row|column|divided|split|section|left|layout|arrange|composite|tiled|of\s+(?:video|scene|shot|view)"
    r"|[^\x00-\x7f]",
    re.IGNORECASE,
)


def talks_of_grid(text: str) -> bool:
    """Tell whether a caption is about the grid of frames, not about what they show."""
    return bool(_GRID_HINT.search(text) and _GRID.search(text))
