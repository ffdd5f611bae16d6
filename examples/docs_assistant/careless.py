"""The same assistant with a prompt that somebody made more helpful: it always answers, whatever it found.

It answers what no document says, which the test set asks in a fifth of its questions: the gate refuses it.
"""

import dataclasses

import docs_assistant
from docs_assistant import assistant

from holdtrue.project.applications import PromptFile

project = docs_assistant.project
project.applications["assistant"] = dataclasses.replace(assistant, prompt=PromptFile("prompts/careless.toml"))
