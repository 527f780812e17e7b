"""Captions in which the writer says that it cannot, may not or does not see."""

import re

from mama_ray.captioning.phrases.patterns import PICTURE, AnyOf

_TELL = (
    r"(?:see|view|watch|access|determine|tell|describe|identify|provide|assist|help|process|analy[sz]e|recogni[sz]e"
    r"|discern|make\s+out|say|give|answer|comment|generate|confirm|know|infer|ascertain|interpret|fulfil+|comply|create"
    r"|write|caption|summari[sz]e|be\s+(?:sure|certain)|open|play|load)"
)
_SEEN = (
    r"(?:described?|determined?|told|tell|identif(?:y|ied)|discern(?:ed)?|infer(?:red)?|say|said|make\s+out"
    r"|ascertain(?:ed)?|know|provide[d]?|interpret(?:ed)?)"
)
_MEDIUM = rf"(?:{PICTURE}|videos?|clips?|footage|content|scenes?)"
_NOT = (
    r"(?:cannot|can(?:'|\u2019)?t|can\s+not|could\s+not|couldn(?:'|\u2019)?t|am\s+(?:\w+\s+)?(?:unable"
    r"|not\s+able)\s+to|(?:'|\u2019)m\s+(?:unable|not\s+able)\s+to|do(?:\s+not|n(?:'|\u2019)?t)|won(?:'|\u2019)?t)"
)
_DARK = (
    r"(?:dark|blurry|blurred|bright|small|low|unclear|grainy|pixelated|pixellated|fast|noisy|far|dim|short|distorted"
    r"|vague|obscured?|tiny)"
)

_REFUSAL = AnyOf(
    r"\bas\s+an?\s+(?:ai|artificial\s+intelligence)(?:[\s-]+(?:based|powered))?\s*(?:,|$|i\b|(?:language\s+"
    r"|text[\s-]*based\s+|visual\s+)?"
    r"(?:model|assistant|system|program|chatbot)\b)",
    r"\bas\s+a\s+(?:large\s+)?language\s+model\b",
    r"\bi(?:(?:'|\u2019)?m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:ai|language\s+model|artificial\s+intelligence)\b",
    r"(?:^\W*|[.!?;:]\s+|\bbut\s+)(?:i(?:(?:'|\u2019)?m|\s+am)\s+(?:so\s+|very\s+|really\s+)?(?:sorry|afraid)\b"
    r"|sorry\s*[,.!]|sorry\s+(?:but|i)\b"
    r"|my\s+apologies\b|i\s+apologi[sz]e\b|apologies\s*,|unfortunately\s*,?\s*(?:i|we|the|this|it|there)\b)",
    rf"\bi\s*{_NOT}\s+(?:\w+ly\s+)?(?:to\s+)?{_TELL}\b",
    r"\bwe\s+can(?:not|\s+not|(?:'|\u2019)?t)\s+(?:\w+ly\s+)?(?:tell|say|determine|describe|identify|know|discern"
    r"|provide|be\s+(?:sure|certain))\b",
    r"\bi\s+(?:do\s+not|don(?:'|\u2019)?t|have\s+no|lack)\s*(?:have\s+)?(?:any\s+|the\s+|enough\s+|sufficient\s+)?"
    r"(?:information|context|access|ability|idea|capability|way|data)\b",
    rf"(?:^\W*|\b(?:i(?:(?:'|\u2019)?m|\s+am)|we\s+are|(?:the|this)\s+(?:model|system"
    rf"|assistant)\s+is)\s+)(?:currently\s+)?(?:unable|not\s+able)\s+to\s+{_TELL}\b",
    r"\b(?:unable|not\s+able)\s+to\s+(?:describe|assist|determine|generate|comply|fulfil+)\b",
    r"\bcan(?:not|(?:'|\u2019)?t)\s+(?:assist|help|comply)\s+(?:you\s+)?(?:with\s+)?(?:that|this|your)\b",
    rf"\b(?:not\s+possible|impossible|not\s+feasible)\s+to\s+(?:\w+ly\s+)?(?:{_TELL}|{_SEEN})\b",
    rf"\b(?:difficult|hard|challenging|tough|unclear)\s+(?:for\s+\w+\s+)?to\s+(?:\w+ly\s+)?(?:{_SEEN}|determine"
    rf"|identify|provide|recogni[sz]e|describe|see\s+(?:what|who|any|clearly|anything|details))\b",
    rf"\btoo\s+{_DARK}(?:\s+(?:and|or)\s+(?:too\s+)?\w+)?\s+(?:for\s+\w+\s+)?(?:to"
    rf"|for)\s+(?:be\s+)?(?:\w+ly\s+)?(?:{_TELL}|{_SEEN}|seen|a\s+description|recogni[sz]ed|discerned|viewed"
    rf"|analy[sz]ed|processed)\b",
    rf"\b{_MEDIUM}\s+(?:quality\s+)?(?:is|are|was|were|appears?|seems?)\s+(?:to\s+be\s+)?(?:simply\s+|just\s+|much\s+"
    rf"|far\s+)?too\s+{_DARK}\b",
    r"^\W*(?:it(?:(?:'|\u2019)?s|\s+is|\s+was)\s+)?too\s+(?:dark|blurry|blurred|bright|unclear|grainy|pixelated"
    r"|dim)\b(?=\W*$|\s+to\b)",
    rf"\b{_MEDIUM}\s+(?:\w+\s+){{0,3}}?can(?:\s*not|(?:'|\u2019)?t)\s+be\s+(?:\w+ly\s+)?(?:seen|shown|viewed|opened"
    rf"|read|loaded|displayed|played|processed|{_SEEN})\b",
    r"\b(?:cannot|can\s+not|can(?:'|\u2019)?t|could\s+not)\s+be\s+(?:\w+ly\s+)?(?:determined|described|discerned"
    r"|ascertained|inferred)\b",
    r"\bno\s+(?:\w+\s+)?(?:content|information|description|captions?|context|details|videos?|images?|data|visuals?"
    r"|frames?|pictures?|clips?|footage|answer)\s+"
    r"(?:is|was|are|were|has\s+been|have\s+been|can\s+be)?\s*(?:available|provided|given|found|attached|supplied"
    r"|uploaded|shared|possible)\b",
    rf"\b(?:the|this|your|any|an?)\s+(?:\w+\s+)?{_MEDIUM}\s+(?:is|was|are|were)\s+(?:not|n(?:'"
    rf"|\u2019)t)\s+(?:available|provided|visible|clear\s+enough|supported|accessible|attached|loading)\b",
    rf"\b{_MEDIUM}\s+(?:do(?:es)?\s+not|do(?:es)?n(?:'|\u2019)?t)\s+(?:\w+ly\s+)?(?:contain|provide|show|have|offer"
    rf"|give|include|load|play)\s+"
    r"(?:any\s+|enough\s+|sufficient\s+|much\s+)(?:\w+\s+){0,2}(?:information|content|context|details?|data"
    r"|description|visuals?)\b",
    r"\b(?:not\s+enough|insufficient|lack\s+of|without\s+(?:more|additional|further|any))\s+(?:\w+\s+)?(?:information"
    r"|context|details?|data)\b",
    r"(?:^\W*|[.!?;:,]\s+)(?:please|kindly|could\s+you(?:\s+please)?|can\s+you(?:\s+please)?)\s+(?:provide|upload"
    r"|share|attach|send|supply|give\s+me|describe|clarify|try\s+again)\b",
    r"\b(?:there(?:\s+is|(?:'|\u2019)?s)\s+)?(?:nothing|no\s+(?:visible\s+)?(?:content|information"
    r"|action))\s+to\s+(?:describe|caption|report|show|say)\b",
    r"(?:^\W*|[.!?;:]\s+|\b(?:was|is|occurred|encountered)\s+(?:an?\s+)?)(?:failed|error|problem|issue)"
    r"\s+(?:to|while|when|in|with)?\s*(?:load|loading|process|processing|open"
    r"|opening|decode|decoding|generat\w+)\b",
    r"\b(?:content|usage|safety)\s+polic(?:y|ies)\b|\bagainst\s+(?:my|our|the)\s+(?:guidelines|policy|policies"
    r"|programming)\b",
    r"\b(?:it(?:\s+is|(?:'|\u2019)?s)|it\s+remains)\s+(?:not\s+clear|unclear|uncertain|unknown|not\s+known)\s+(?:what"
    r"|who|whether|if|from|where|why|how)\b",
    r"(?:^\W*|[.!?;:,]\s+)(?:i(?:(?:'|\u2019)?m|\s+am)\s+)?not\s+(?:sure|certain)\s+(?:what|who|how|if|whether)\b",
    r"\byou\s+(?:have\s+not|haven(?:'|\u2019)?t|did\s+not|didn(?:'|\u2019)?t)\s+(?:provide|upload|share|attach|include|supplie?|sen[dt])"
    r"(?:d|ed)?\b",
    r"\bi\s*(?:would|(?:'|\u2019)d)?\s+need\s+(?:more|additional|further|some)\s+(?:\w+\s+)?(?:information|context|details?)\b",
    r"\b(?:more|additional|further)\s+(?:information|context|details?)\s+(?:is|are|would\s+be)\s+(?:needed|required"
    r"|necessary)\b",
    rf"^\W*(?:cannot|can\s+not|can(?:'|\u2019)?t|could\s+not|couldn(?:'|\u2019)?t)\s+{_TELL}\b",
    rf"\bi\s+see\s+no\s+{_MEDIUM}\b",
    rf"\b(?:not\s+possible|impossible)\s+for\s+(?:me|us)\s+to\s+{_TELL}\b",
    r"\bit\s+can(?:\s*not|(?:'|\u2019)?t)\s+be\s+(?:seen|known)\s+(?:what|who|how|if|whether|where|which)\b",
    r"\b(?:image|picture|photo|video|clip|footage)s?\s+(?:is|are|appears?(?:\s+to\s+be)?|seems?(?:\s+to\s+be)?)"
    r"\s+(?:\w+ly\s+)?blank\b",
    r"\bnot\s+(?:\w+ly\s+)?(?:clear|visible|discernible|apparent|evident|identifiable|recogni[sz]able)\s+(?:from|in)\s+(?:the|this)"
    r"\s+(?:image|picture|photo|frame|video|clip|footage)s?\b",
    r"\bviolat\w+\s+(?:\w+\s+){0,2}(?:polic(?:y|ies)|guidelines)\b",
    # Chinese, then Japanese
    r"^\W*(?:非常|很|真的|十分)?(?:抱歉|对不起|對不起|不好意思|遗憾)\s*[,，。、!！我]",
    r"(?:^|[\s,，。;；!！、]|我|我们|模型|系统|视频|画面|内容|图像|图片|很|也|因此|所以|但)(?:无法|無法|不能|没办法"
    r"|沒辦法|难以|難以|没有办法)(?:从[^，。]{0,12})?(?:准确|准確|清楚"
    r"|清晰|具体|直接|为您|对其|进行|給出|给出|提供|做出)*"
    r"(?:描述|判断|判斷|看到|看清|看出|识别|辨识|辨認|辨认|确定|確定|分辨|提供|协助|回答|查看|访问|分析|生成|处理"
    r"|得知|说明|確認|确认)",
    r"(?:作为|作為|我是)(?:一个|一個|一款|一名)?(?:ai|人工智能|人工智慧|语言模型|語言模型|大型?语言模型)",
    r"(?:画面|视频|图像|图片|影片|光线|畫面|視頻|內容|内容)?(?:太|过于|過於|过)(?:暗|模糊|黑|小|亮|昏暗"
    r"|黑暗)(?:了)?[^。]{0,6}?(?:无法|無法|不能|看不|难以|，看|,看|$|。)",
    r"(?:^|[\s,，。]|我|画面|内容|视频)(?:看不清|看不出|看不見|看不见|不清楚|不知道)(?:楚)?(?:画面|内容|是什么|发生"
    r"|在做|视频|$|。)",
    r"(?:没有|沒有|缺乏|缺少|无)(?:提供|足够的?|任何|可用的?|更多的?)*(?:信息|内容|資訊|上下文|描述|细节)(?:可|来|以"
    r"|$|。)",
    r"(?:^|[\s,，。])[请請](?:您)?(?:提供|上传|上傳|分享|重新)",
    r"申し訳(?:ありません|ございません|ない)|^\W*(?:すみません|ごめんなさい|残念ながら)",
    r"(?:説明|判断|判別|特定|識別|確認|認識|描写|提供|お答え|お手伝い|回答|記述|分析|把握)(?:することが|することは|は"
    r"|が|を)?(?:でき(?:ない|ません|かねます)|難しい|困難|不可能)",
    r"(?:見え|分かり|わかり|読み取れ|見分けられ)ません(?:$|。|が|ので)|(?:内容|何|様子)(?:が|か"
    r"|は)[^。]{0,8}(?:わからない|分からない"
    r"|不明)",
    r"暗すぎ(?:て|る|ます)|(?:ぼやけ|不鮮明)(?:すぎ)?(?:て|で)[^。]{0,8}(?:ない|ません)",
    r"(?:ai|人工知能|言語モデル)(?:アシスタント|モデル)?として|(?:情報|コンテキスト|詳細)(?:が)?(?:不足|足り"
    r"|ありません|提供されて)",
    r"(?:画像|動画|映像)を(?:提供|アップロード|共有)して",
)  # fmt: skip

# What a person says in a video is no refusal by the model.
_QUOTED = re.compile(
    r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|「[^」]*」|『[^』]*』|(?<!\w)'[^']{3,}'(?!\w)|\u2018[^\u2019]*\u2019(?!\w)"
)
_SAID = re.compile(
    r"\b(?:says|said|saying|sings|singing|sang|shouts|shouting|yells|yelling|tells|telling|told|explain(?:s|ing|ed)?"
    r"|repeats?|repeating"
    r"|writes|reads|reading|whispers|screams|signs|asks|asking|replies|the\s+words?|song|titled|called|that\s+he"
    r"|that\s+she)\b[^.!?;]*",
    re.IGNORECASE,
)

# Words without which none of the patterns can be found: most captions need no more than this.
_REFUSAL_HINT = re.compile(
    r"\bas\s+an?\b|\bi\b|i['\u2019]m|\bwe\b|sorry|apolog|unfortunate|able|not\b|n['\u2019]?t\b|possib|feasib"
    r"|difficult|hard|challeng|tough"
    r"|clear|certain|known|too\b|\bno\b|enough|insufficient|lack|without|please|kindly|could|can\b|nothing|fail|error"
    r"|problem"
    r"|issue|polic|guideline|against|blank|\byou\b|need|necessary|required|[^\x00-\x7f]",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Tell whether the writer says that it cannot, may not or does not see; people in the video may."""
    return bool(_REFUSAL_HINT.search(text) and _REFUSAL.search(_SAID.sub(" ", _QUOTED.sub(" ", text))))
