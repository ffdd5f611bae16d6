"""A call of the gateway, as its facts are left when it has ended."""

from holdtrue.core.clock import SystemClock, microseconds
from holdtrue.llm.gateway import Attempt, CallFacts, Operation, Outcome, Usage

NOW = microseconds(SystemClock().now())
CALL = CallFacts(
    id="call_0",
    request_id="req_1",
    traceparent="",
    project="help",
    key="tok_1",
    actor="svc_1",
    operation=Operation.CHAT,
    stream=False,
    asked="small",
    provider="fake",
    kind="openai",
    model="small",
    answered_model="small-1",
    response_id="chatcmpl-1",
    outcome=Outcome.OK,
    error="",
    status=200,
    finish_reasons=("stop",),
    usage=Usage(30, 20),
    cost_micros=17,
    cached=False,
    attempts=(Attempt("other", "small", 503, "", NOW, 10), Attempt("fake", "small", 200, "", NOW, 20)),
    started_us=NOW,
    first_us=NOW + 5,
    ended_us=NOW + 9,
    labels={"service": "helper"},
    parameters={"temperature": 0.5},
    capture="full",
    request={"messages": [{"role": "user", "content": "Wann öffnet ihr?"}]},
    answer={"choices": [{"message": {"role": "assistant", "content": "At nine."}, "finish_reason": "stop"}]},
)
