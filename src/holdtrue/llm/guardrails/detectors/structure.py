"""Signs of an attack that lie in the form of a text: roles, templates, images that carry data, commands."""

import re
from typing import Final

# Pattern, family, label, weight. They run on the folded text, in lower case.
_SHAPES: Final[tuple[tuple[str, tuple[str, ...], str, str, float], ...]] = (
    # Roles and templates of chat models.
    (
        r"<\|[a-z_]{2,20}\|>|\[/?inst\]|<</?sys>>|</?(?:system|assistant|user_input|system_prompt|instructions)>",
        ("<|", "[", "<"),
        "template",
        "role_spoofing",
        0.6,
    ),
    (
        r"(?m:^)[ \t>*#\[]{0,8}(?:system|developer|admin)(?:[ _](?:message|prompt|override|notice|note))?"
        r"[ \t*\]]{0,6}[:\]](?![:/=])",
        ("system", "developer", "admin"),
        "role",
        "role_spoofing",
        0.5,
    ),
    (r"[\"']role[\"']\s{0,2}:\s{0,2}[\"'](?:system|developer)[\"']", ("role",), "role", "role_spoofing", 0.6),
    (
        r"(?:begin|end)(?: of)? (?:the )?(?:system|user|new) (?:prompt|message|instructions)",
        ("begin", "end"),
        "role",
        "role_spoofing",
        0.5,
    ),
    (r"\b(?:system|admin) (?:override|notice)\b", ("override", "notice"), "role", "role_spoofing", 0.5),
    (
        r"\n[ \t]{0,4}(?:assistant|ai)[ \t]{0,2}:[^\n]{0,400}\n",
        ("\nassistant", "\nai", "\n "),
        "dialogue",
        "role_spoofing",
        0.55,
    ),
    # Who is spoken to.
    (
        r"\b(?:note|message|instructions?) (?:to|for) (?:the |all |any )?(?:ai|llm|assistant|language"
        r" model|chatbot|model)s?\b",
        (
            "note to",
            "note for",
            "message to",
            "message for",
            "instruction to",
            "instruction for",
            "instructions to",
            "instructions for",
        ),
        "addressing",
        "override",
        0.45,
    ),
    (
        r"\b(?:attention|dear|hey),? (?:ai|llm|assistant|language model|chatbot)s?\b",
        ("attention", "dear", "hey"),
        "addressing",
        "override",
        0.45,
    ),
    (
        r"\bif you(?: are|'re) (?:an? )?(?:ai|llm|(?:large )?language model|assistant|bot|chatbot)\b",
        ("if you are a", "if you're a", "if you are l"),
        "addressing",
        "override",
        0.5,
    ),
    (
        r"\b(?:ai|llm)s?(?: assistants?| models?| agents?| reviewers?)?(?: that are)?"
        r" (?:reading|processing|must|should)\b",
        (
            "llm",
            "ai reading",
            "ai must",
            "ai should",
            "ai processing",
            "ai assistant",
            "ai model",
            "ai agent",
            "ai review",
            "ais ",
        ),
        "addressing",
        "override",
        0.4,
    ),
    (
        r"\b(?:the )?assistant(?:,|:) (?:please |you )?(?:disregard|ignore|call|send|praise|decode|reveal|forget"
        r"|do|run)\b",
        ("assistant,", "assistant:"),
        "addressing",
        "override",
        0.5,
    ),
    (
        r"\b(?:new|real|actual|updated) (?:instructions?|task|directives?|rules|objective)\s{0,2}(?::|start|begin"
        r"|are\b|follow)"
        r"|\bneue (?:anweisung|aufgabe|regel)(?:en|n)?\s?:|\bnouvelles? instructions?\s?:|\bnuevas instrucciones\s?:"
        r"|\bnovas instruções\s?:",
        ("instruc", "task", "directive", "rules", "objective", "anweisung", "aufgabe", "regel", "instruç"),
        "new",
        "override",
        0.5,
    ),
    (
        r"\binstead of [^\n.]{3,80}, (?:respond|reply|say|answer|output|print)(?: only)? (?:with|that|as)\b",
        ("instead of",),
        "instead",
        "override",
        0.5,
    ),
    (
        r"\b(?:and|then),? (?:just )?(?:reply|say|respond|answer|output) (?:with |only |exactly )?['\"“]",
        ("and reply", "and say", "and respond", "and answer", "and output", "then", "just "),
        "say",
        "override",
        0.3,
    ),
    (
        r"\b(?:print|show|dump|reveal|display|give|output|return|share|paste)\b[^\n.]{0,60}\b(?:context"
        r" window|developer message"
        r"|system role|system message|initial message|first message)\b",
        ("context window", "message", "system role"),
        "prompt_exfiltration",
        "prompt_exfiltration",
        0.6,
    ),
    (
        r"\b(?:start|beginning) of (?:this|the|our) (?:chat|conversation|context|session)\b",
        ("start of", "beginning of"),
        "beginning",
        "prompt_exfiltration",
        0.3,
    ),
    # A new self.
    (
        r"\byou(?: are|'re) (?:now|going to act|required to)\b(?! my\b)",
        ("you are now", "you're now", "going to act", "required to"),
        "become",
        "role_spoofing",
        0.3,
    ),
    (
        r"\bdu bist (?:jetzt|nun) (?:ein|eine|kein|im)\b|\btu es (?:maintenant|désormais) une?\b|\bahora eres una?\b"
        r"|\bagora você é uma?\b|\bdu befindest dich\b",
        ("du ", "tu es", "eres", "você"),
        "become",
        "role_spoofing",
        0.4,
    ),
    (
        r"\b(?:from now on|from this point(?: on| forward)?|from here on),? (?:you\b|obey|only|all|act|answer|ignore)",
        ("from now on", "from this point", "from here on"),
        "from_now",
        "override",
        0.35,
    ),
    (
        r"\bab (?:jetzt|sofort) (?:bist|hast|darfst|musst) du\b|à partir de maintenant,? (?:tu|vous)\b"
        r"|\ba partir de ahora,? (?:eres|no tienes|tú|debes)\b|\ba partir de agora,? (?:você|tu)\b",
        ("ab ", "partir"),
        "from_now",
        "override",
        0.4,
    ),
    (
        r"\bdo anything now\b|\bnever refuses?\b|\bcan(?:not|'t) refuse\b|\bnever say (?:you|no)\b|\bno"
        r" (?:ethical|moral)\b",
        ("anything now", "refuse", "never say", "ethical", "moral"),
        "unbound",
        "role_spoofing",
        0.5,
    ),
    (
        r"\b(?:any|every|all) (?:further )?(?:content|request|question)s?\b",
        ("y content", "y request", "y question", "l request", "l question", "l content", "further "),
        "any",
        "role_spoofing",
        0.2,
    ),
    (
        r"\bsudo [a-z]{2,20}_[a-z_]{2,20}\b|\b(?:god|developer|debug|maintenance|dan) mode\b",
        ("sudo", "mode"),
        "mode",
        "role_spoofing",
        0.4,
    ),
    (
        r"\bi(?: am|'m) (?:your|the|one of your|an? ) ?(?:lead |chief |real"
        r" )?(?:developer|creator|administrator|admin|engineer"
        r"|owner|supervisor)s?\b",
        ("developer", "creator", "admin", "engineer", "owner", "supervisor"),
        "authority",
        "role_spoofing",
        0.45,
    ),
    # Data that leaves.
    (
        r"!\[[^\]\n]{0,100}\]\(\s{0,3}https?://[^)\s]{0,300}(?:[{$<]|=(?=[)\s]|$))",
        ("![",),
        "image",
        "tool_exfiltration",
        0.65,
    ),
    (
        r"<img\b[^>]{0,200}src=[\"']?https?://[^\"'>\s]{1,300}(?:[{$]|=[\"'>\s])",
        ("<img",),
        "image",
        "tool_exfiltration",
        0.6,
    ),
    (
        r"https?://[^\s)\"']{1,200}[=/?](?:\{\{?|\$|<)[a-z_]{2,40}",
        ("http",),
        "placeholder_url",
        "tool_exfiltration",
        0.4,
    ),
    (r"https?://[^\s)\"']{1,200}[?&][a-z_]{1,20}=(?=\s|$)", ("http",), "placeholder_url", "tool_exfiltration", 0.4),
    (
        r"\bos\.system\b|\bsubprocess\.|@/etc/|/etc/passwd|\.ssh/|\|\s{0,2}(?:nc|bash|sh) |\.env\b",
        ("os.", "subprocess", "/etc", ".ssh", "|", ".env"),
        "command",
        "tool_exfiltration",
        0.4,
    ),
    (
        r"\b(?:call|invoke|run|execute)(?: the)? [a-z]{2,30}_[a-z_]{2,40}\b",
        ("_",),
        "tool_call",
        "tool_exfiltration",
        0.4,
    ),
    (
        r"\b(?:use|using|call|invoke|run|with)(?: (?:your|the))? [a-z_]{2,30} (?:tool|function)s?\b",
        ("tool", "function"),
        "tool_call",
        "tool_exfiltration",
        0.3,
    ),
    (r"\b(?:download|fetch|open|visit|get)\b[^\n.]{0,40}https?://", ("http",), "visit", "tool_exfiltration", 0.3),
    (
        r"\b(?:and|then) (?:run|execute|do what it says|obey|follow it|comply|carry it out)\b",
        ("and run", "then run", "execute", "it says", "obey", "follow it", "comply", "carry it"),
        "obey_it",
        "encoded",
        0.35,
    ),
    (
        r"https?://[^\s)\"'<>]{3,200}|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,60}\.[a-z]{2,20}",
        ("http", "@"),
        "destination",
        "tool_exfiltration",
        0.15,
    ),
    # Text that a person does not see.
    (
        r"font-size\s{0,2}:\s{0,2}0|display\s{0,2}:\s{0,2}none|visibility\s{0,2}:\s{0,2}hidden|<!--",
        (":", "<!--"),
        "unseen",
        "encoded",
        0.3,
    ),
)

SHAPES: Final = tuple(
    (re.compile(pattern), needles, family, label, weight) for pattern, needles, family, label, weight in _SHAPES
)
QUOTED: Final = re.compile(
    r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|„[^“”\n]{1,400}[“”]|«[^»\n]{1,400}»|`[^`\n]{1,400}`"
    r"|(?<!\w)'[^'\n]{1,400}'(?!\w)"
)
