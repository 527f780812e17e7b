"""Captions that hold no words, or signs of another trade: special tokens, tags, JSON, Markdown, lists, chats."""

import re
from itertools import pairwise

# A whole caption that says that there is none.
_NOTHING = re.compile(
    r"(?:n\s*[/\\.]?\s*a\.?|none|null|nil|nan|undefined|unknown|unclear|untitled|nothing|empty|blank|tbd|todo|error"
    r"|missing|unavailable|(?:caption|description|content|information|video|image|answer)s?\s+(?:is\s+|are\s+)?"
    r"(?:unavailable|missing|not\s+(?:available|provided|found))"
    r"|(?:not|non)[\s-]+(?:applicable|available|provided|specified|given|known|visible|sure|clear)"
    r"|(?:there\s+is\s+)?no\s+(?:caption|description|text|content|video|image|answer|data|information|comment|output"
    r"|action|response)s?"
    r"|(?:i\s+)?don(?:'|\u2019)?t\s+know|no\s+idea|nothing\s+(?:visible|is\s+visible|to\s+see|happens|here)"
    r"|无|無|空|空白|没有|暂无|不适用|不適用|未知|不明|不详|不知道|没有(?:描述|内容|字幕|信息)|无(?:描述|内容|字幕"
    r"|信息|法识别)|暂无(?:描述|内容|字幕)"
    r"|なし|無し|ありません|該当なし|不明です|説明なし|特になし|わかりません|分かりません)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^\W*(?:(?:video\s+|image\s+)?(?:caption|description|answer|output|response|result)|字幕|描述|说明|回答"
    r"|キャプション|説明)\s*[:：]\s*",
    re.IGNORECASE,
)
# Special tokens, tags, byte tokens and what is left of broken UTF-8.
_TOKENS = re.compile(
    r"</?[A-Za-z][\w.:-]{0,40}(?:\s[^<>]{0,80})?/?>|<[|\uff5c][^<>]{1,40}[|\uff5c]>|<0x[0-9A-Fa-f]{2}>|<<\/?\w+>>"
    r"|\[/?(?:UNK|PAD|CLS|SEP|MASK|INST|BOS|EOS|IMG|IMAGE|SYS)\]|\u2581|\ufffd|[\ue000-\uf8ff]|&(?:amp|lt|gt|quot"
    r"|nbsp|#\d+);"
)
_MARKUP = re.compile(
    r"^\s*[{\[]\s*[\"'{\[\]}\d]|^\s*\{|```|^\s*<\?xml|[\"']\w[\w ]{0,30}[\"']\s*:\s*(?:[\"'\[{\d]|true|false|null)"
    r"|\*\*[^*]+\*\*|^\s*#{1,6}\s+\S|\]\(\w+:|^\s*\|.*\|\s*$|\\n|\\u[0-9a-f]{4}"
    r"|^\W*(?:USER|ASSISTANT|HUMAN|SYSTEM|GPT|BOT|AI)\s*[:：]|\b(?:USER|ASSISTANT|HUMAN)\s*:",
)
_LIST_MARK = re.compile(
    r"^\s*(?:[(\[（【]?\d{1,3}[.):：、）\]】](?!\d)|(?:No|Nr|#)\.?\s*\d{1,3}\s*[.:)]|[-*+·–—]\s+\S|[•‣▪●◦・]\s*\S"
    r"|[\u2460-\u2473]|[(（][a-zA-Z一二三四五六七八九十][)）]"
    r"|[a-zA-Z]\)|(?:I{1,3}|IV|V|VI{1,3}|i{2,3}|iv|vi{1,3})[.)]\s|[一二三四五六七八九十]{1,3}[、.．]"
    r"|第[一二三四五六七八九十]+[、，,:：])"
)
_INNER_MARKS = re.compile(r"(?:^|[\s:：,;；，。、])(?:[(（]?([1-9]\d?)[.):）]\s+(?=[^\W\d_])|([1-9])、)")


def says_nothing(text: str) -> bool:
    """Tell whether nothing is left of a caption but "N/A" and the like, once tokens and a label are taken away."""
    rest = _LABEL.sub("", _TOKENS.sub(" ", text))
    if not any(char.isalpha() for char in rest):
        return True
    return bool(_NOTHING.fullmatch(rest.strip(" \t\r\n.。!！?？\"'`()[]（）【】<>-–—_*:：;；,，…")))


def has_markup(text: str) -> bool:
    """Tell whether a caption holds special tokens, tags, JSON, Markdown, list marks, labels or a chat's roles."""
    if _LABEL.match(text) or _TOKENS.search(text) or _MARKUP.search(text) or _LIST_MARK.search(text):
        return True
    numbers = [int(one or two) for one, two in _INNER_MARKS.findall(text)]
    return any(following == number + 1 for number, following in pairwise(numbers))
