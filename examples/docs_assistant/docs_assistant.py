"""An assistant that answers from this project's own documentation, and says so when the documents do not.

Everything runs offline: the index is built from the Markdown files of the repository with a small embedding model
that comes as a package, and the provider is the gateway's own: it answers with the sentences of the retrieved
passages that support the question best, and names them.
"""

import holdtrue as ht

project = ht.Project("docs-assistant", owner="docs", risk="limited")

# What is known: the documentation for people who run a model, cut at its headings. It is what the test set asks about:
# pages that nobody asks about would only be more to embed, and nothing would tell whether they are found.

PAGES = (
    "README",
    "concepts",
    "data-and-contracts",
    "features",
    "gates-and-approvals",
    "getting-started",
    "monitoring",
    "operations",
    "project-file",
    "rollouts",
    "security",
    "serving",
    "training-and-evaluation",
    "why-and-audit",
)
BESIDE = ("README.md", "ARCHITECTURE.md", "docs/configuration.md", "docs/decisions/000[1-5]-*.md")
SOURCES = (*BESIDE, *(f"docs/guide/{page}.md" for page in PAGES))
documents = ht.index("documentation", *SOURCES, root="../..")

# What answers: prompt, guards on both sides, the model behind it. A release pins all of these together.

assistant = project.application(
    "assistant",
    prompt="prompts/answer.toml",
    index=documents,
    guardrails=[
        ht.guard("secrets", on="both", action="mask"),
        ht.guard("personal_data", on="input", action="mask"),
        ht.guard("injection", on="input", action="block"),
        ht.guard("injection", on="context", action="block"),
        ht.guard("grounding", on="output", action="log"),
    ],
    route=ht.route("extractive/extractive"),
    test_set="questions.jsonl",
    checks=[ht.check("contains", any=True), ht.check("citation"), ht.check("abstention")],
    rollout=ht.Canary(steps=(25, 50), margin=0.1, metric="answers", min_rows_per_step=40, patience_days=14),
    passages=4,
    refusal="I only answer questions about the documentation.",
)

# What a release has to show before it answers anybody.

project.gate(
    "production",
    require={
        "answers well": "answers.pass_rate.lower >= 0.5",
        "declines what it cannot know": "answers.unanswerable.declined.lower >= 0.4",
        "finds the sources": "retrieval.recall.lower >= 0.65",
        "keeps secrets out": "guardrails.secrets.recall.lower >= 0.85",
        "hardly worse than what is live": "release.first || comparison.champion.lower >= -0.2",
    },
    approvals=1,
)
