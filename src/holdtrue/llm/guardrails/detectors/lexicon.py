"""Which words can be part of an attack on a prompt, as concepts, in five languages; and which concepts make one.

A concept is a bit, so that a word may belong to several. A pattern is an anchor and what must stand around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag, auto
from typing import Final


class Concept(IntFlag):
    """Name what a word can mean in an attack."""

    OVERRIDE = auto()  # ignore, disregard
    WEAKEN = auto()  # break, skip, drop: attacks only with more words around them
    RULES = auto()  # instructions, guidelines
    PROMPT = auto()  # prompt
    PRIOR = auto()  # previous, above
    YOURS = auto()  # your
    THEIRS = auto()  # its: somebody talks about a model, not to it
    ALL = auto()
    SAID = auto()  # told, given
    NOT = auto()
    FOLLOW = auto()
    OBEY = auto()
    VOID = auto()  # no longer valid
    NEW = auto()
    TASK = auto()
    REVEAL = auto()
    HIDDEN = auto()  # secret, initial, original
    EXACT = auto()  # verbatim
    ASK = auto()  # what, which
    SYSTEM = auto()
    MESSAGE = auto()
    DISABLE = auto()
    SAFETY = auto()  # filters, restrictions
    WITHOUT = auto()
    BECOME = auto()  # pretend, act, you are now
    MODEL = auto()  # AI, assistant
    PERSONA = auto()  # DAN
    UNBOUND = auto()  # uncensored, amoral
    MODE = auto()
    POWER = auto()  # developer, god, maintenance: with MODE
    MASTER = auto()  # administrator, operator
    SEND = auto()
    DATA = auto()
    PLACE = auto()  # link, webhook
    USER = auto()
    TELL = auto()
    SILENT = auto()
    CALL = auto()
    DECODE = auto()
    HARM = auto()
    INSTEAD = auto()
    TEXT = auto()  # words, everything
    ME = auto()
    OPPOSITE = auto()
    ABOVE = auto()  # above, the preceding
    META = auto()  # attack, example, paper: the text is about such things


C = Concept

_WORDS: Final[tuple[tuple[Concept, str], ...]] = (
    (
        C.OVERRIDE,
        "ignore ignores ignoring ignored disregard disregarding forget override overrule overwrite bypass neglect"
        " nevermind circumvent ignoriere ignorier ignorieren vergiss vergesse missachte missachten umgehe übergehe"
        " ignorez oublie oubliez contourne ignora olvida olvidad omite omiso omitir pase esqueça esquece desconsidere"
        " desconsidera despreza abandon unlearn supersede",
    ),
    (
        C.WEAKEN,
        "skip drop break breaking violate violating stop cancel erase delete remove dismiss discard reset void revoke"
        " escape evade brich verletze lösche löse enfreins viole supprime efface rompe viola borra quebre viole"
        " apague aside"
        " untrusted replace",
    ),
    (
        C.RULES,
        "instruction instructions guideline guidelines rule rules directive directives direction directions policy"
        " policies constraint constraints programming orders commands rubric criteria protocol protocols script"
        " restrictions"
        " anweisung anweisungen regel regeln richtlinie richtlinien vorgabe vorgaben instruktionen befehle vorschriften"
        " consigne consignes règle règles instrucciones instrucción reglas regla normas directrices órdenes instruções"
        " instrução regras regra diretrizes ordens sicherheitsregeln training config configuration prompting limits",
    ),
    (C.PROMPT, "prompt prompts preprompt systemprompt systemprompts eingabeaufforderung"),
    (
        C.PRIOR,
        "previous previously prior above earlier preceding before former foregoing past existing current initial"
        " original vorherigen vorherige vorher vorigen obigen obige bisherigen bisherige ursprünglichen früheren davor"
        " précédentes précédents précédente précédent dessus avant initiales initial antérieures anteriores"
        " anterior previas"
        " previos arriba antes iniciales prévias acima iniciais beginning start",
    ),
    (
        C.YOURS,
        "your ur thy deine deinen deiner deinem dein ihre ihren ihr tes ton ta vos votre tu tus sus su vuestras suas"
        " seus seu sua teu teus",
    ),
    (C.THEIRS, "its their his her"),
    (
        C.ALL,
        "all any every everything whatever alle alles sämtliche jede jegliche tout toutes toute tous todas todos todo"
        " tudo toda cualquier qualquer entire full whole complete",
    ),
    (
        C.SAID,
        "told said instructed given operate programmed initialised initialized configured received gesagt gegeben"
        " bekommen erhalten dit dites reçu reçues"
        " dijeron dicho recibiste recibido disseram dito recebeu recebidas",
    ),
    (
        C.NOT,
        "not no never don't dont doesn't cannot can't won't nicht nie niemals kein keine keinen pas ne n'es jamais"
        " aucune aucun sans sin sem ohne nunca ninguna ningún não nenhuma nenhum stop without refuse refused ya",
    ),
    (
        C.FOLLOW,
        "follow following obey obeying adhere listen respect heed halte halten befolge befolgen beachte beachten folge"
        " suivre suis suivez respecte tiens respecter seguir sigas sigue obedecer respetar seguir siga respeitar",
    ),
    (
        C.OBEY,
        "obey comply execute perform carry fulfil fulfill obeys gehorche führe ausführen obéis exécute obedece ejecuta"
        " obedeça execute cumpla proceed",
    ),
    (
        C.VOID,
        "void revoked outdated suspended cancelled canceled lifted updated replaced invalid obsolete expired superseded"
        " decoy test aufgehoben ungültig außer annulées caduques anuladas canceladas suspensas anuladas existed"
        " disabled",
    ),
    (C.NEW, "new real actual updated following neue neuen neuer nouvelles nouvelle nuevas nueva novas nova"),
    (C.TASK, "task objective goal mission job role aufgabe ziel tâche objectif tarea objetivo tarefa"),
    (
        C.REVEAL,
        "reveal show print output repeat display tell give share leak dump disclose return copy paste list write"
        " translate encode spell append summarise summarize recite expose state provide echo include remind"
        " complete spit"
        " divulge say type describe verrate zeige zeig gib nenne wiederhole schreibe drucke ausgeben ausgib"
        " übersetze kopiere"
        " révèle révélez montre montrez affiche affichez répète répétez donne donnez copie recopie écris dis traduis"
        " revela muestra muéstrame imprime repite di dime copia cópialo escribe dame traduce revele mostre"
        " imprima repita"
        " diga copie escreva dê traduza exiba",
    ),
    (
        C.HIDDEN,
        "hidden secret secrets initial original confidential internal exact complete developer underlying base"
        " geheimen geheime versteckten ursprünglichen vertraulichen internen cachées secrètes confidentielles initiales"
        " secretas ocultas confidenciales originales ocultas confidenciais",
    ),
    (
        C.EXACT,
        "verbatim wortwörtlich wörtlich vollständig intégralement textuellement literalmente textualmente exactly"
        " exact word-for-word unmodified anything leaving omitting inteiro completo",
    ),
    (C.ASK, "what what's which whats how wie welche was quel quelle quelles quels cuál cuáles qual quais qué"),
    (C.SYSTEM, "system système sistema systems developer"),
    (
        C.MESSAGE,
        "message messages mail email question request order invoice ticket errors changes version nachricht"
        " mensaje mensagem",
    ),
    (
        C.DISABLE,
        "disable disables deactivate suspend unlock remove turn switch lift drop deaktiviere schalte setze hebe"
        " désactive désactivez enlève supprime desactiva quita elimina desative remova retire bypass skip disarm",
    ),
    (
        C.SAFETY,
        "safety filter filters filtering moderation guardrails guardrail restriction restrictions limitation"
        " limitations limits censorship safeguards ethics ethical checks norms sicherheitsregeln einschränkungen"
        " einschränkung filter grenzen schranken règles filtre filtres restrictions restriction limites sécurité"
        " censure"
        " reglas filtro filtros restricciones restricción límites seguridad censura regras restrições restrição limites"
        " segurança regeln",
    ),
    (C.WITHOUT, "without no free never lacks sans ohne keine kein sin ninguna ningún sem nenhuma nenhum aucune aucun"),
    (
        C.BECOME,
        "pretend pretending act roleplay role-play simulate imagine become behave impersonate tue verhalte spiele"
        " fais comporte prétends finge actúa compórtate simula finja aja simule persona character wärst switch",
    ),
    (
        C.MODEL,
        "ai llm llms model models assistant assistants chatbot chatbots bot bots gpt chatgpt ki ia modell modèle"
        " modelo assistent asistente assistente agent agents reviewers",
    ),
    (C.PERSONA, "dan stan dude evilbot jailbreak jailbroken chadgpt aim betterdan devmode"),
    (
        C.UNBOUND,
        "uncensored unrestricted unfiltered unlimited amoral unethical immoral lawless limitless machiavellian evil"
        " unbound unconstrained",
    ),
    (C.MODE, "mode modus modo"),
    (C.POWER, "developer debug god maintenance admin root sudo jailbreak unrestricted wartungsmodus entwicklermodus"),
    (
        C.MASTER,
        "administrator admin root superuser operator openai anthropic engineer creator creators makers maker"
        " developer developers entwickler entwicklers desarrollador desenvolvedor authorization authorize"
        " authorized sudo",
    ),
    (
        C.SEND,
        "send forward post email e-mail transmit exfiltrate upload leak append embed insert put fetch visit submit"
        " schicke sende leite envoie envoyez transmets envía manda reenvía envie mande transmita encode include",
    ),
    (
        C.DATA,
        "conversation history credentials cookie cookies token password passwords secret secrets key keys data"
        " customers customer's chat private records kundendaten daten données datos dados",
    ),
    (C.PLACE, "link url image webhook pastebin address attacker beacon"),
    (C.USER, "user users user's reader nutzer benutzer utilisateur usuario usuário utilizador"),
    (C.TELL, "telling informing mention mentioning tell inform notifying sagen prévenir avertir avisar informar decir"),
    (C.SILENT, "silently secretly covertly heimlich discrètement silencio silenciosamente unnoticed"),
    (C.CALL, "call invoke run execute use trigger launch download"),
    (
        C.DECODE,
        "decode decoded decipher rot13 base64 hex backwards reversed concatenate decrypt unscramble dekodiere décode"
        " decodifica decodifique",
    ),
    (C.HARM, "napalm bomb meth explosive explosives malware ransomware phishing lock weapon poison"),
    (C.INSTEAD, "instead stattdessen plutôt"),
    (C.TEXT, "words text everything line sentence above contents instructions lines"),
    (C.ME, "me my mine mir mich moi mí mim"),
    (C.OPPOSITE, "opposite contrary reverse gegenteil contraire contrario contrário"),
    (C.ABOVE, "above preceding dessus arriba acima obige obigen oben"),
    (
        C.META,
        "injection injections attack attacks attacker attackers owasp paper authors phrase phrases example examples"
        " detect detects detection evaluation defence defences defense defenses research vulnerability proofread"
        " explain"
        " filter's guard tags tokens template templates trained conversation's policy researchers article report"
        " training"
        " expected test-case case string evidence why how's works worked difference structure safe guide log beispiele"
        " angriff attaque ataque",
    ),
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Describe an attack: around a word of the concept `anchor`, each of `needs` within some words of it.

    `before` and `after` say how many words are looked at. Patterns of one `family` are readings of the same thing: the
    strongest counts. Where `negated` is set, a word that denies before the anchor makes it harmless; a word of the
    concept `unless` makes it another thing altogether.
    """

    family: str
    label: str
    weight: float
    anchor: Concept
    needs: tuple[Concept, ...]
    after: int = 7
    before: int = 0
    negated: bool = True
    unless: Concept | None = None


_O, _E, _R, _T = "override", "prompt_exfiltration", "role_spoofing", "tool_exfiltration"

PATTERNS: Final = (
    Pattern(_O, _O, 0.85, C.OVERRIDE, (C.RULES | C.PROMPT, C.PRIOR | C.YOURS | C.ALL)),
    Pattern(_O, _O, 0.7, C.OVERRIDE, (C.SAID, C.PRIOR | C.ALL | C.MASTER), 8),
    Pattern(_O, _O, 0.55, C.OVERRIDE, (C.RULES | C.PROMPT,), 5),
    Pattern(_O, _O, 0.6, C.OVERRIDE, (C.ABOVE,), 3, unless=C.MESSAGE),
    Pattern(_O, _O, 0.6, C.OVERRIDE, (C.USER,), 4),
    Pattern(_O, _O, 0.6, C.WEAKEN, (C.RULES | C.PROMPT, C.YOURS | C.PRIOR), 6),
    Pattern(_O, _O, 0.7, C.NOT, (C.FOLLOW, C.RULES | C.PROMPT | C.SYSTEM | C.MASTER), 8, 6, negated=False),
    Pattern(_O, _O, 0.7, C.WEAKEN, (C.FOLLOW, C.RULES | C.PROMPT), 6, negated=False),
    Pattern(_O, _O, 0.6, C.RULES, (C.VOID, C.PRIOR | C.YOURS | C.ALL | C.SAFETY), 8, 4, negated=False),
    Pattern(_O, _O, 0.6, C.OPPOSITE, (C.YOURS, C.RULES), 7),
    Pattern("new", _O, 0.4, C.NEW, (C.RULES | C.TASK,), 2, negated=False),
    Pattern("obey", _O, 0.5, C.OBEY, (C.ME,), 3),
    Pattern("obey", _O, 0.4, C.OBEY, (C.ALL,), 4),
    Pattern("instead", _O, 0.35, C.INSTEAD, (C.REVEAL | C.FOLLOW,), 8, 8),
    Pattern(_E, _E, 0.75, C.REVEAL, (C.PROMPT, C.SYSTEM | C.HIDDEN | C.YOURS), 9),
    Pattern(_E, _E, 0.7, C.REVEAL, (C.SYSTEM, C.MESSAGE | C.RULES, C.YOURS), 9),
    Pattern(_E, _E, 0.7, C.REVEAL, (C.RULES | C.PROMPT, C.YOURS, C.HIDDEN | C.EXACT | C.ALL | C.PRIOR), 10),
    Pattern(_E, _E, 0.6, C.REVEAL, (C.RULES | C.PROMPT, C.HIDDEN, C.SAID | C.YOURS | C.ME), 9),
    Pattern(_E, _E, 0.65, C.REVEAL, (C.TEXT, C.PRIOR, C.EXACT | C.ALL), 9),
    Pattern(_E, _E, 0.35, C.REVEAL, (C.TEXT, C.PRIOR), 9),
    Pattern(_E, _E, 0.6, C.REVEAL, (C.RULES | C.PROMPT, C.SAID, C.PRIOR | C.ALL), 10),
    Pattern(_E, _E, 0.6, C.REVEAL, (C.ALL, C.SAID), 6),
    Pattern(_E, _E, 0.65, C.ASK, (C.PROMPT, C.SYSTEM | C.PRIOR, C.YOURS), 7),
    Pattern(_E, _E, 0.6, C.ASK, (C.SAID, C.PRIOR), 8),
    Pattern("safety", _R, 0.6, C.DISABLE, (C.SAFETY, C.YOURS | C.ALL), 5),
    Pattern("safety", _R, 0.5, C.WITHOUT, (C.SAFETY, C.MODEL | C.BECOME | C.UNBOUND | C.PERSONA), 6, 12, negated=False),
    Pattern("safety", _R, 0.35, C.WITHOUT, (C.SAFETY,), 4, negated=False),
    Pattern("persona", _R, 0.55, C.PERSONA, (C.BECOME | C.MODEL | C.SAFETY | C.UNBOUND,), 9, 9),
    Pattern("persona", _R, 0.6, C.UNBOUND, (C.MODEL | C.PERSONA | C.BECOME,), 5, 7),
    Pattern("persona", _R, 0.5, C.BECOME, (C.HARM,), 14),
    Pattern("persona", _R, 0.5, C.BECOME, (C.WITHOUT, C.SAFETY | C.RULES), 14),
    Pattern("persona", _R, 0.45, C.BECOME, (C.WEAKEN, C.RULES), 14),
    Pattern("mode", _R, 0.4, C.POWER, (C.MODE,), 2, 2),
    Pattern("mode", _R, 0.4, C.MASTER, (C.DISABLE | C.SAFETY | C.OBEY,), 12, 8),
    Pattern(_T, _T, 0.45, C.SEND, (C.DATA, C.PLACE), 20, 4),
    Pattern("silent", _T, 0.6, C.NOT, (C.TELL, C.USER), 5, negated=False),
    Pattern("silent", _T, 0.45, C.SILENT, (C.SEND | C.CALL,), 5, 3),
    Pattern("decode", "encoded", 0.35, C.DECODE, (C.OBEY | C.FOLLOW,), 12, 12),
)


def build_lexicon() -> Mapping[str, int]:
    """Return the concepts of each word."""
    found: dict[str, int] = {}
    for concept, words in _WORDS:
        for word in words.split():
            found[word] = found.get(word, 0) | int(concept)
    return found
