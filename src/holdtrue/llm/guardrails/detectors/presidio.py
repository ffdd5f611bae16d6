"""Find personal data with presidio's pattern recognisers, over a blank spaCy pipeline: no model, no network.

Without a model there is no recognition of entities: names of persons, places and organisations are not found.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.guardrails.model import Hit, Steps, Subject
from holdtrue.llm.guardrails.rules import PRESIDIO

_LANGUAGE: Final = "en"


def presidio_detector(kinds: Collection[str], allow: Collection[str], threshold: float) -> Callable[[Subject], Steps]:
    """Return a detector that asks presidio; raises MissingExtra with the install command where it is not installed."""
    analyzer = _analyzer()
    entities = [entity for entity, label in PRESIDIO.items() if label in kinds]
    allowed = list(allow)

    def detect(subject: Subject) -> Steps:
        yield []
        found = analyzer.analyze(
            text=subject.text,
            language=_LANGUAGE,
            entities=entities,
            score_threshold=threshold,
            allow_list=allowed or None,
        )
        yield [Hit(each.start, each.end, float(each.score), PRESIDIO[each.entity_type]) for each in found]
        return 0.0

    return detect


def _analyzer() -> Any:
    try:
        import presidio_analyzer
    except ImportError:
        raise MissingExtra.of("pii", "presidio-analyzer") from None
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        DeTaxIdRecognizer,
        EsNieRecognizer,
        EsNifRecognizer,
        FiPersonalIdentityCodeRecognizer,
        IbanRecognizer,
        IpRecognizer,
        ItFiscalCodeRecognizer,
        NhsRecognizer,
        PhoneRecognizer,
        PlPeselRecognizer,
        SePersonnummerRecognizer,
        UkNinoRecognizer,
        UsSsnRecognizer,
    )

    # It tells on standard error of each language that a recogniser was made for; a server's log is no place for that.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    made: list[Any] = [
        recogniser(supported_language=_LANGUAGE)
        for recogniser in (
            CreditCardRecognizer, DeTaxIdRecognizer, EsNieRecognizer, EsNifRecognizer, FiPersonalIdentityCodeRecognizer,
            IbanRecognizer, IpRecognizer, ItFiscalCodeRecognizer, NhsRecognizer, PhoneRecognizer, PlPeselRecognizer,
            SePersonnummerRecognizer, UkNinoRecognizer, UsSsnRecognizer,
        )
    ]  # fmt: skip
    registry = presidio_analyzer.RecognizerRegistry(
        recognizers=[*made, _email_recogniser()], supported_languages=[_LANGUAGE]
    )
    return presidio_analyzer.AnalyzerEngine(
        registry=registry, nlp_engine=_blank_engine(), supported_languages=[_LANGUAGE]
    )


def _email_recogniser() -> Any:
    """Return presidio's recogniser of addresses with the list of top-level domains that its library ships.

    As it comes it fetches the current list from the network when it sees its first address.
    """
    import tldextract
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Offline(EmailRecognizer):
        """Recognise e-mail addresses without the network."""

        def validate_result(self, pattern_text: str) -> bool:
            """Tell whether the domain is below a known one; those reserved for examples (RFC 2606) count too."""
            domain = pattern_text.rpartition("@")[2].lower()
            return domain.endswith((".example", ".test", ".invalid")) or extract(domain).fqdn != ""

    return Offline(supported_language=_LANGUAGE, name="EmailRecognizer")


def _blank_engine() -> Any:
    """Return an engine for presidio's interface that only cuts texts into words, by spaCy's rules for English."""
    import spacy
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class Blank(NlpEngine):
        """Give words and their lower-case forms, which is what context words are compared with."""

        def __init__(self) -> None:
            self._nlp = spacy.blank(_LANGUAGE)

        def load(self) -> None:
            """Do nothing: there is no model."""

        def is_loaded(self) -> bool:
            """Tell that it is ready."""
            return True

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            """Return the words of a text, and no entities."""
            words = self._nlp.make_doc(text)
            return NlpArtifacts(
                entities=[],
                tokens=words,
                tokens_indices=[word.idx for word in words],
                lemmas=[word.lower_ for word in words],
                nlp_engine=self,
                language=language,
                scores=[],
            )

        def process_batch(
            self, texts: Iterable[str], language: str, batch_size: int = 1, n_process: int = 1, **kwargs: Any
        ) -> Iterator[tuple[str, NlpArtifacts]]:
            """Yield each text with its words."""
            for text in texts:
                yield text, self.process_text(text, language)

        def is_stopword(self, word: str, language: str) -> bool:
            """Tell whether a word says little."""
            return bool(self._nlp.vocab[word].is_stop)

        def is_punct(self, word: str, language: str) -> bool:
            """Tell whether a word is a sign."""
            return bool(self._nlp.vocab[word].is_punct)

        def get_supported_entities(self) -> list[str]:
            """Return nothing: there is no recognition of entities."""
            return []

        def get_supported_languages(self) -> list[str]:
            """Return the one language."""
            return [_LANGUAGE]

    return Blank()
