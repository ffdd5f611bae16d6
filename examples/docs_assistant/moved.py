"""The same assistant after a page was moved: its sources no longer have the one about rollouts.

The test set asks about everything alike, so one page hardly shows in it. People do not: in a week of trouble
most of them ask about just that page, and the canary sees what becomes of their questions.
"""

import dataclasses

import docs_assistant
from docs_assistant import BESIDE, PAGES, assistant

import holdtrue as ht

FOUND = (f"docs/guide/{page}.md" for page in PAGES if page != "rollouts")

project = docs_assistant.project
documents = ht.index("documentation", *BESIDE, *FOUND, root="../..")
project.applications["assistant"] = dataclasses.replace(assistant, index=documents)
