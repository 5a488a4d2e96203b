"""What terms, reason codes and marks mean to somebody who sees them for the first time: a sentence
each, which stands before the exact definition wherever a page explains one.

Terms and codes are defined in docs/methodology.md and ``record.checks``; nothing here binds.
"""

from __future__ import annotations

TERMS = {
    # speed and waits
    "output_tok_per_s": "How fast the answer comes. Higher is better; people read at about 7 tok/s",
    "ttft_s": "How long you wait before the answer begins. Lower is better; below half a second it"
    " feels immediate",
    "ttfa_s": "How long you wait for the answer proper, thoughts of a reasoning model not counted."
    " Lower is better",
    "tpot_s": "How long each further token takes. Lower is better; 50 ms are 20 tok/s",
    "icl_s": "How evenly the answer flows: long gaps are felt as stutter. Lower is better",
    "prefill_tok_per_s": "How fast what you send is read, before the answer begins. Higher is"
    " better; it decides how long documents and code take",
    "prefill_source": "Who timed the reading of the prompt: the engine itself, or a stopwatch"
    " outside, which also sees the network",
    "end_to_end_tok_per_s": "The rate with the wait before the answer counted in. Higher is better",
    "useful_tok_per_s": "The rate at which the answer proper comes, waiting and thinking counted as"
    " lost. Higher is better",
    "system_tok_per_s": "What the machine makes for all its users together. Higher is better; each"
    " of them gets less than that",
    "connect_s": "How long it takes to reach the server at all. It is in no other figure",
    "concurrency_mean": "How many requests were really served at the same time, beside how many"
    " were asked",
    # what was asked and answered
    "prompt_tokens": "How long the question was, in tokens: about three quarters of a word each",
    "output_tokens": "How long the answer was, thoughts included",
    "reasoning_tokens_median": "How much of an answer was thinking that most programs do not show",
    "content_tokens_median": "How much of an answer was the text you read",
    "tool_call_tokens_median": "How much of an answer was calls of tools, as agents make them",
    "hidden_tokens_median": "What the server counted but never sent: usually hidden thoughts",
    "answered_share": "How many requests got an answer at all; the others ended while thinking",
    "cached_tokens": "How much of the prompts the engine remembered instead of reading. Here it"
    " must be 0, or the reading looks faster than it is",
    "token_count_source": "Who counted the tokens",
    "finish_reasons": "Why answers ended: length, where the wanted length was reached, stop where"
    " the model was done",
    "requests": "How many questions were asked to get these figures",
    "request_errors": "How many of them failed. 0 is good",
    "repeats": "How often all of it was done again from a fresh start. More is more certain",
    # speculation
    "speculative.acceptance_rate": "How often the guesses of a small helper were right. Higher is"
    " faster",
    "speculative.drafted_tokens": "How many tokens were guessed ahead",
    "speculative.accepted_tokens": "How many of the guesses were right and kept",
    "speculative.steps": "How often the model had to work for all these tokens. Fewer is faster",
    "speculative.acceptance_length": "How many tokens each step brought. 1 is no gain",
    "greedy.same": "Whether guessing ahead left the answer as it was, as it should",
    "greedy.compared_characters": "How much of the two answers was compared",
    "greedy.first_divergence_characters": "How far the two answers are the same, in characters",
    "greedy.first_divergence_tokens": "How far the two answers are the same, in tokens",
    # conversations, load
    "session": "A conversation of several turns, where the engine may remember what was said",
    "session_s": "How long you wait for the engine in a whole conversation. Lower is better",
    "session.turns": "How many questions one conversation has",
    "session.sessions": "How many conversations were had to the end",
    "session.hit_rate": "How much of what was said before the engine still remembered. Higher is"
    " better",
    "session.reusable_share": "How much it could have remembered at best",
    "load": "How the questions come: one after the other, or whenever users happen to ask",
    "rate_per_s": "How many questions arrive a second",
    "open_loop.sent_per_s": "How many questions were really sent a second",
    "open_loop.completed_per_s": "How many were answered a second. Much less than were sent, and"
    " the queue grows",
    "open_loop.ttft_s": "How long a user waits for the answer to begin, the queue included",
    "open_loop.latency_s": "How long a user waits until the answer is complete",
    "open_loop.tpot_s": "How long each token takes while others ask, too",
    "open_loop.lag_s": "How late questions were sent. It should be next to nothing",
    "open_loop.in_flight_max": "How many users were waiting at the worst moment",
    "open_loop.unfinished": "How many questions nobody waited for any longer",
    "open_loop.overloaded": "Whether more was asked than could be answered: waits then only grow",
    "open_loop.goodput_share": "How many users were answered as fast as was promised",
    "open_loop.goodput_per_s": "How many requests a second are answered as fast as was promised."
    " Higher is better",
    "sustained.seconds": "How long the machine was kept busy without a pause",
    "sustained.tok_per_s_first": "How fast it was at the begin, while it was cool",
    "sustained.tok_per_s_last": "How fast it was at the end, when it was warm",
    "sustained.last_over_first": "How much of the speed was left. 1 is none lost",
    "sustained.clock_last_over_first": "How much of its clock the chip still had at the end",
    "sustained.cause": "What made it slower, most often heat",
    "ladders": "The same with more and more users, until more bring nothing",
    "knee": "How many users the machine serves well: with more, each only waits longer",
    "load_nodes.nodes": "How many machines asked the questions",
    "load_nodes.lost": "How many of them dropped out",
    "load_nodes.start_skew_s": "How far apart they began",
    "load_nodes.clock_uncertainty_s": "How far apart their clocks may be",
    # the engine's side, memory, energy
    "server.output_tok_per_s": "How fast the engine says that it was, to hold against the stopwatch"
    " outside",
    "server.prefill_tok_per_s": "How fast the engine says that it read the prompt",
    "server.difference": "How far engine and stopwatch are apart. Near 0 is good",
    "server.difference_largest": "The same for the request where they differ most",
    "server.source": "Where the engine's own times come from",
    "counters": "What the engine counted by itself meanwhile",
    "memory.engine_vram_bytes": "What the card must have free. Less leaves room for longer"
    " contexts",
    "memory.engine_rss_bytes": "What the computer's main memory must have free",
    "energy.j_per_output_token": "How much energy a token takes. Lower is better; 3.6 J a token are"
    " 1 kWh for a million",
    "energy.idle_subtracted_j_per_output_token": "The same without what the machine draws anyway",
    "energy.total_j": "How much energy all of it took",
    "energy.scope": "Which parts the meter saw: the card, the processor, or all at the wall",
    "ceiling_tok_per_s": "The most that the memory allows. A figure near it cannot become much"
    " faster on this machine",
    "ceiling_share": "How near it comes to the most that the memory allows. Higher is better; far"
    " below half, something else holds it back",
    "ceiling_kind": "How it is known how fast the memory is",
    "prefill_matrix_share": "How much of what the chip can compute the reading of prompts uses",
    "client_cpu_share": "How busy the measuring program was. Near 100 %, it may be the limit"
    " itself",
    "power_limit_w": "How many watts the card may draw. A lower limit is quieter and cheaper, and"
    " often hardly slower",
    # what was measured
    "model": "The program that answers, as its maker released it",
    "family": "Models of one maker under one name, in several sizes",
    "variant": "Which of a family: its size, and what it was made for",
    "quant": "How small the model was squeezed to fit. Fewer bits need less memory and run faster,"
    " but answer worse",
    "quant_creator": "Who squeezed it: the same quant of two people is not the same file",
    "backend": "The program that runs the model, and what it computes with",
    "rig": "The computer it ran on",
    "mode": "What was switched on to be faster, or smaller, than the engine is by default",
    "mode.offload": "Parts of the model that stay in main memory because the card is too small:"
    " it runs, but slower",
    "workload": "What kind of use was played: a chat, questions on documents, writing code, an"
    " agent",
    "concurrency": "How many people, or agents, ask at the same time. 1 is you alone",
    "depth_tokens": "How much was said before the question. The more, the slower",
    "plain": "Without anything special: a fresh question, one after the other",
    "run": "One measurement of one model on one machine; it is one file",
    "result": "One line of the data: one kind of use within a run",
    "reasoning": "Thinking before answering: better answers, but you wait for it",
    # what may be believed
    "range": "From the slowest to the fastest that was seen",
    "ci95": "Where the true figure very likely lies. Narrow is good; where two overlap, neither is"
    " known to be faster",
    "faster": "Shown to be so by repeated measurements, not by one lucky one",
    "verdict": "Whether a change made it slower than is allowed",
    "not_distinguishable": "As good as equal: measured often enough, and no difference was found",
    "inconclusive": "Nobody can say yet: it takes more measurements",
    "level": "How thoroughly it was measured, from a quick look to what may be published",
    "provenance": "Where the figure comes from: measured here, or taken over from somebody",
    "reproduced": "Somebody else's machine of the same make has measured the same: two that"
    " agree are worth more than one that is sure of itself",
    "validity": "Whether the figure may be trusted: valid was checked and nothing was found,"
    " invalid is kept but does not count",
    "quality": "Whether the squeezed model still answers as the full one does",
    "errata": "A mistake that was found later, told beside the figure",
}
"""By the key of a term."""

CODES = {
    # invalid
    "request_errors": "Some questions failed, so what is left may not be typical",
    "no_tokens": "No answer came, so there is nothing to measure",
    "output_length": "Answers were shorter or longer than wanted, so they do not compare",
    "cached_tokens": "The engine remembered part of the prompt, so reading it looks too fast",
    "warm_first_turn": "The engine knew the first question already, so the conversation looks too"
    " fast",
    "clock_mismatch": "The engine and the stopwatch outside disagree on how fast it was",
    "count_mismatch": "Two counts of the answer's tokens disagree, so its rate is in doubt",
    "prompt_length": "The questions were not as long as they should be, so waits do not compare",
    "concurrency_not_reached": "Fewer were served at once than asked; the others stood in a queue",
    "foreign_cpu_load": "Other programs took the processor, so it was probably slower than it"
    " can be",
    "client_bound": "The measuring program itself may have been the limit",
    "throttled": "The card was too hot or short of power and slowed itself down",
    "foreign_gpu_load": "Another program used the card, so it was probably slower than it can be",
    "cpu_spill": "The model did not fit on the card, so the slow processor did a part of it",
    "not_resident": "The model did not fit into memory and was read from the disk meanwhile",
    "api_not_confirmed": "It probably ran on other hardware than was meant",
    "speculation_inactive": "Guessing ahead was switched on but did nothing",
    "reasoning_off_not_honoured": "The model thought although it was told not to",
    "setting_ignored": "The engine did not do what it was asked to",
    "timings_impossible": "The engine reports times that cannot be",
    "contradictory": "Figures of this record contradict each other, so some of them are wrong",
    "incomplete": "The measurement was cut short; what there is was kept",
    # unverified
    "prompt_length_unverified": "Nobody can say how long the questions were",
    "token_count_unverified": "Nobody else confirms how many tokens came",
    "no_rate": "How fast the answer came cannot be told",
    "clocks_apart": "The clocks of the asking machines do not agree well enough",
    "coarse_stream": "The answer came in a few large pieces, which hide how fast it was written",
    "overloaded": "More was asked than could be answered, so the waits only tell how long it"
    " went on",
    "first_chunk_assumed": "How much the first piece of an answer held was assumed, not counted",
    "repeats_share_a_start": "The engine was not started anew each time, so chance is told too"
    " small",
    "greedy_unverified": "Whether guessing ahead changes the answers was not looked at",
    "api_unverified": "Nobody confirms what hardware it ran on",
    "placement_unverified": "Parts of the model may not have been on the card",
    "setting_unverified": "Nobody confirms that the engine did what it was asked to",
    "gpu_was_busy": "Something else used the card just before",
    "above_ceiling": "It is faster than the memory should allow, so something may be wrong",
    "implausible": "It is faster than is possible, or far faster than anybody else's",
    "samples": "Only the results are there, not the single measurements behind them",
    # unverified: figures of other tools
    "mean_not_median": "It is an average, which one slow answer can spoil",
    "chunks_as_tokens": "Pieces of the answer were counted instead of tokens",
    "chunks_at_once": "Pieces that came together were counted as gaps of no length",
    "tpot_with_ttft": "The wait for the begin is mixed into the time per token",
    "weighted_by_tokens": "Long answers count more than short ones",
    "prefill_from_ttft": "The reading of the prompt was timed from outside, with all that"
    " delays it",
    "cache_untold": "Nobody says whether the engine remembered part of the prompt",
    "engine_clock": "The engine timed itself; nobody looked from outside",
    # unchecked
    "warm_up_untold": "Nobody says whether the engine was warmed up first",
    "server_clock": "The engine tells no times of its own to compare with",
    "api": "The engine does not say what hardware it ran on",
    "cache": "The engine does not say whether it remembered part of the prompt",
    "throttle": "Whether heat slowed it down could not be seen",
    "gpu_processes": "Whether others used the card could not be seen",
    "scheduling": "Whether the engine had to wait for the processor could not be seen",
    "vram_fit": "Whether it fits on the card was not looked at",
    "output_length_limit": "Answers may have ended early; the server does not say why they ended",
}
"""By the reason code."""

MARKS = {
    "invalid": "Something went wrong, so this does not count and has no rank; it is kept with its"
    " reasons",
    "valid": "It was checked, and nothing speaks against it",
    "unchecked": "Nothing was found wrong, but it could not be looked at",
    "failed": "The measurement ended in an error",
    "interrupted": "The measurement was cut short",
    "erratum": "A mistake was found in it later; what is right stands on its page",
    "transcribed": "Copied from somebody's page, not measured by tokrig",
    "imported": "Taken over from another tool's file, not measured by tokrig",
    "quick": "Measured from one start only: a range, and nobody knows by how much chance moves it",
    "unverified": "Nothing was found wrong, but something that matters could not be confirmed",
    "reproduced": "Another machine of the same make has measured the same",
    "contradicted": "Another machine of the same make measured something else, and nothing tells"
    " why",
    "your file": "It is in your browser alone, and has no rank",
}
"""By the word of the mark."""


def of_code(code: str) -> str:
    """The sentence of a code; the code in words where it is of a later tokrig."""
    return CODES.get(code, code.replace("_", " "))


def exactly(text: str, definition: str) -> str:
    """The plain sentence, and in the next line what binds."""
    return f"{text}.\nExactly: {definition}."
