"""What model names stand for: prompts by name and alias, and plain models for all others."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from holdtrue.core.errors import ConfigurationError
from holdtrue.llm.gateway.model import Body, Caller, ModelNotFound, Resolved, Resolver
from holdtrue.llm.prompts import Prompt, compose, parse_prompt

PROMPT: Final = "prompt:"
APPLICATION: Final = "app:"


@dataclass(frozen=True, slots=True)
class PromptBook:
    """Know the prompts of all projects by name and alias, as the snapshot of the moment has them.

    `prompts` maps a project to its prompts, a prompt's name to its aliases, and an alias to (version id, prompt).
    """

    prompts: Mapping[str, Mapping[str, Mapping[str, tuple[str, Prompt]]]] = field(
        default_factory=dict[str, Mapping[str, Mapping[str, tuple[str, Prompt]]]]
    )

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "PromptBook":
        """Read the book from the snapshot's JSON: project → name → alias → {version, content}."""
        return cls(
            {
                project: {
                    name: {
                        alias: (entry["version"], parse_prompt(entry["content"], f"{name}@{alias}"))
                        for alias, entry in aliases.items()
                    }
                    for name, aliases in named.items()
                }
                for project, named in data.items()
            }
        )

    def names(self, project: str) -> list[str]:
        """Return the names by which a project's prompts can be asked for."""
        return sorted(
            f"{PROMPT}{name}@{alias}" for name, aliases in self.prompts.get(project, {}).items() for alias in aliases
        )

    def find(self, project: str, text: str) -> tuple[str, Prompt]:
        """Return version id and prompt for “name@alias”, “name” (its production) or “name@version id”."""
        name, _, wanted = text.partition("@")
        aliases = self.prompts.get(project, {}).get(name)
        if aliases is None:
            known = ", ".join(sorted(self.prompts.get(project, {}))[:10]) or "none"
            raise ModelNotFound(f"There is no prompt “{name[:80]}”.", why=f"Prompts here: {known}.")
        for alias, entry in aliases.items():
            if wanted in (alias, entry[0]) or (not wanted and alias == "production"):
                return entry
        raise ModelNotFound(
            f"The prompt “{name}” has no “{(wanted or 'production')[:80]}”.",
            why=f"It has: {', '.join(sorted(aliases))}.",
            mend="“production” comes with the first release that is deployed; “latest” is what was applied last.",
        )


class Names:
    """Know the names of a project: prompts (`prompt:NAME@ALIAS`), and models for all others."""

    def __init__(self, models: Resolver) -> None:
        self.book = PromptBook()
        self._models = models

    async def resolve(self, caller: Caller, name: str, body: Body) -> Resolved:
        """Return who answers, and with which body; raise ModelNotFound, PromptVariable."""
        if not name.startswith(PROMPT):
            return await self._models.resolve(caller, name, body)
        text = name.removeprefix(PROMPT)
        version, prompt = self.book.find(caller.project, text)
        if not prompt.model:
            raise ConfigurationError(
                f"The prompt “{text}” names no model.",
                why="Used alone, a prompt is answered by the model that it names itself.",
                mend='Write model = "provider/model" into its file, or use it in an application.',
            )
        made = compose(prompt, body, {}, text)
        kept = {field: body[field] for field in ("stream", "stream_options", "user") if field in body}
        resolved = await self._models.resolve(caller, prompt.model, {**made, **kept})
        labels = {**resolved.route.labels, "prompt": version}
        return Resolved(replace(resolved.route, labels=labels), resolved.body)

    def models(self, project: str) -> list[str]:
        """Return the names that can be asked for in a project."""
        return [*self._models.models(project), *self.book.names(project)]
