"""An OpenAI-compatible server over steered sessions, on this machine, for the people of its profiles.

llama.cpp is not re-entrant, so one thread owns the model (`Worker`): it loads it, unloads it when it was idle for long,
and answers one request after the other. A request is a `Job` in a queue of bounded length; beyond that, it is refused
with 503. What a job yields goes to the event loop, which writes it to the client. A client that leaves takes its job
out of the queue, or sets the session's `cancel`, which is looked at between tokens and, on the CPU, between the
operations of a prompt's batch.

`NAME@PROFILE` is the model as `dps-local generate -m NAME -p PROFILE` has it: the profile in the prompt, its heads
steered. `NAME` is the model alone. γ = 0 asks for the plain model, so it takes the profile out of the prompt too, and
is the same as the bare name. A system message of the client stands behind the profile's.

Each kept conversation (`Conversations`) is an `Assistant` with contexts of its own, made by the same code and options
as `generate` makes it, so that greedy texts are equal. It belongs to one person, γ, mode and system message for as long
as it lives, and nothing of another person is ever in its contexts. A message list goes on from the kept conversation
with which it shares most turns: turns that are not shared are taken back, and only new ones are read. The least
recently used one is closed when there are too many.

`response_format` becomes a grammar (`JsonGrammar`), under which llama.cpp draws: what is written is JSON of the schema,
and what a grammar cannot hold of a schema is refused. So is llama-server's raw `grammar`: llama.cpp's parser prints a
wrong one, and a hostile one ends the process. Vectors (/v1/embeddings) are the plain model's.

Nothing is scored inside a request. Nothing of a request's text is logged, and nothing of it is kept on disk.
"""
