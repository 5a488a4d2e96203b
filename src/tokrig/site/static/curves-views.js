// What each view of the curves page draws and lists. A curve comes from assets/curves-<view>.js (see
// site/curves.py): columns of equal length, a value a point.
"use strict";

{
  const { gigabytes, isKnown, NULL, rate, time } = tokrig.words;
  const { fast } = tokrig.curves;

  const whole = (value) => (isKnown(value) ? String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",") : NULL);
  const short = (value) => (isKnown(value) ? String(Number(value.toPrecision(4))) : NULL);
  const tokPerS = (value) => `${rate(value)} tok/s`;

  /** Points of two columns, of those that have both. */
  const points = (curve, x, y, said, ring) =>
    curve[x]
      .map((value, n) => ({ x: value, y: curve[y][n], said: said(n), ring: Boolean(ring?.(n)) }))
      .filter((point) => isKnown(point.x) && isKnown(point.y));

  const FAST = { title: "tok/s", marks: fast };
  const EACH = { title: "tok/s of each request", marks: fast };
  const DEPTH = { title: "tokens of context before the prompt", depth: true };

  const atDepth = (curve) => (n) =>
    `${whole(curve.depth[n])} tokens deep: decode ${tokPerS(curve.decode[n])}, prefill ${tokPerS(curve.prefill[n])}, TTFT ${time(curve.ttft[n])}`;
  const inFlight = (curve) => (n) =>
    `${curve.flight[n]} in flight${curve.flight[n] === curve.knee ? " (the knee)" : ""}: ${tokPerS(curve.each[n])} each, ${rate(curve.system[n])} together, TTFT ${time(curve.ttft[n])}`;
  const atTurn = (curve) => (n) =>
    `turn ${curve.turn[n]}: TTFT ${time(curve.ttft[n])}; ${whole(curve.cached[n])} of ${whole(curve.prompt[n])} tokens from the cache`;
  const atTime = (curve) => (n) => {
    const seen = [["clock", " MHz"], ["heat", " °C"], ["power", " W"]].filter(([name]) => isKnown(curve[name][n]));
    return [`after ${time(curve.time[n])}: ${tokPerS(curve.each[n])} each, ${rate(curve.rate[n])} together`, ...seen.map(([name, unit]) => whole(curve[name][n]) + unit)].join(", ");
  };

  // Quality

  /** Those that no other beats in both: the fastest of all that are as near. ``near`` is low. */
  function frontier(found) {
    const ordered = [...found].sort((a, b) => a.near - b.near || b.point.y - a.point.y);
    let best = -Infinity;
    return ordered.filter(({ point }) => {
      const better = point.y > best;
      if (better) best = point.y;
      return better;
    });
  }

  const nearness = (group, measure) =>
    group.quant
      .map((quant, n) => {
        const [kl, share] = [group.kl[n], group.agreement[n]];
        const said = `${quant || NULL}: ${tokPerS(group.decode[n])}, KL ${short(kl)} nats, the same token in ${(100 * share).toFixed(1)} % (against ${group.reference[n] || "its reference"}), ${gigabytes(group.bytes[n])}`;
        const isKl = measure !== "top1";
        return { n, near: isKl ? kl : -share, point: { x: isKl ? kl : 100 * share, y: group.decode[n], said, ring: false } };
      })
      .filter(({ point }) => measure === "top1" || point.x > 0);

  // Cost

  /** J a token of a point: measured, else by the reader's watts; where it is from; money a million. */
  function costs(curve, n, reader) {
    const told = curve.joule[n];
    const isTold = isKnown(told) && told > 0;
    const joule = isTold ? told : reader.watts && curve.system[n] ? reader.watts / curve.system[n] : null;
    const from = isTold ? `measured, ${curve.scope}` : joule === null ? NULL : `from your ${short(reader.watts)} W`;
    // 1e6 tokens × J / 3.6e6 J a kWh × the price of one
    return { joule, from, million: joule === null || !reader.price ? null : (joule * reader.price) / 3.6 };
  }
  const money = (value, reader) => (value === null ? NULL : `${reader.currency}\u00a0${value >= 100 ? whole(value) : Number(value.toPrecision(3))}`);

  function costPoints(curve, reader, of) {
    return curve.flight
      .map((flight, n) => {
        const found = costs(curve, n, reader);
        const paid = found.million === null ? "" : `, ${money(found.million, reader)} a million`;
        return { x: curve.each[n], y: found[of], said: `${flight} in flight, ${tokPerS(curve.each[n])} each: ${short(found.joule)} J a token (${found.from})${paid}`, ring: false };
      })
      .filter((point) => isKnown(point.x) && isKnown(point.y) && point.y > 0);
  }

  tokrig.curves.views = {
    depth: {
      panels: () => [
        { title: "Decode, tok/s", x: DEPTH, y: FAST, line: (curve) => ({ points: points(curve, "depth", "decode", atDepth(curve)) }) },
        { title: "Prefill, tok/s", x: DEPTH, y: { title: "tok/s", logarithmic: true }, line: (curve) => ({ points: points(curve, "depth", "prefill", atDepth(curve)) }) },
        { title: "Time to first token, s", x: DEPTH, y: { title: "s", logarithmic: true }, line: (curve) => ({ points: points(curve, "depth", "ttft", atDepth(curve)) }) },
      ],
      columns: ["depth, tokens", "decode, tok/s", "of the first", "prefill, tok/s", "TTFT"],
      rows: (curve) => curve.depth.map((depth, n) => [whole(depth), rate(curve.decode[n]), `${Math.round((100 * curve.decode[n]) / curve.decode[0])} %`, rate(curve.prefill[n]), time(curve.ttft[n])]),
    },
    load: {
      panels: () => [
        { title: "All together, tok/s, against each request", x: EACH, y: { title: "tok/s" }, line: (curve) => ({ points: points(curve, "each", "system", inFlight(curve), (n) => curve.flight[n] === curve.knee) }) },
        { title: "Each request, tok/s, by requests in flight", x: { title: "requests in flight", logarithmic: true }, y: FAST, line: (curve) => ({ points: points(curve, "flight", "each", inFlight(curve), (n) => curve.flight[n] === curve.knee) }) },
      ],
      columns: ["in flight", "each, tok/s", "all together, tok/s", "TTFT"],
      rows: (curve) => curve.flight.map((flight, n) => [`${flight}${flight === curve.knee ? ", knee" : ""}`, rate(curve.each[n]), rate(curve.system[n]), time(curve.ttft[n])]),
      note: (curve) => curve.end,
    },
    session: {
      panels: () => [
        { title: "Time to first token, s", x: { title: "turn", whole: true, first: 0.5 }, y: { title: "s" }, line: (curve) => ({ points: points(curve, "turn", "ttft", atTurn(curve)) }) },
        { title: "Tokens from the cache", x: { title: "turn", whole: true, first: 0.5 }, y: { title: "tokens" }, line: (curve) => ({ points: points(curve, "turn", "cached", atTurn(curve)) }) },
      ],
      columns: ["turn", "prompt, tokens", "from the cache", "TTFT", "whole turn"],
      rows: (curve) => curve.turn.map((turn, n) => [String(turn), whole(curve.prompt[n]), whole(curve.cached[n]), time(curve.ttft[n]), time(curve.total[n])]),
      note: (curve) => curve.cache,
    },
    sustained: {
      panels: () => {
        const over = { title: "seconds" };
        const of = (title, name, y) => ({ title, x: over, y, line: (curve) => ({ points: points(curve, "time", name, atTime(curve)) }) });
        return [of("Each request, tok/s", "each", FAST), of("Clock, MHz", "clock", { title: "MHz", close: true }), of("Temperature, °C", "heat", { title: "°C", close: true }), of("Power, W", "power", { title: "W" })];
      },
      columns: ["at", "each, tok/s", "all together, tok/s", "clock, MHz", "temperature, °C", "power, W"],
      rows: (curve) => curve.time.map((at, n) => [time(at), rate(curve.each[n]), rate(curve.rate[n]), whole(curve.clock[n]), whole(curve.heat[n]), whole(curve.power[n])]),
      note: (curve) => curve.end,
    },
    quality: {
      panels: (reader) => {
        const isKl = reader.measure !== "top1";
        const x = isKl ? { title: "KL divergence from the reference, nats: left is nearer", logarithmic: true } : { title: "the same likeliest token as the reference, %: right is nearer", close: true };
        const line = (group) => {
          const found = nearness(group, reader.measure);
          return { points: found.map((one) => one.point), path: frontier(found).map((one) => one.point) };
        };
        return [{ title: "Decode, tok/s", x, y: FAST, line }];
      },
      columns: ["quant", "size", "KL, nats", "same token", "decode, tok/s", "frontier"],
      rows: (group, reader) => {
        const best = new Set(frontier(nearness(group, reader.measure)).map((one) => one.n));
        return group.quant.map((quant, n) => [quant || NULL, gigabytes(group.bytes[n]), short(group.kl[n]), `${(100 * group.agreement[n]).toFixed(1)} %`, rate(group.decode[n]), best.has(n) ? "yes" : "no"]);
      },
    },
    cost: {
      panels: (reader) => [
        { title: `${reader.currency} a million tokens`, said: reader.price ? `at ${reader.price} ${reader.currency} a kWh` : "", x: EACH, y: { title: reader.currency, logarithmic: true }, line: (curve) => ({ points: costPoints(curve, reader, "million") }) },
        { title: "J a token", x: EACH, y: { title: "J", logarithmic: true }, line: (curve) => ({ points: costPoints(curve, reader, "joule") }) },
      ],
      columns: ["in flight", "each, tok/s", "all together, tok/s", "J a token", "energy", "a million tokens"],
      rows: (curve, reader) => curve.flight.map((flight, n) => {
        const found = costs(curve, n, reader);
        return [String(flight), rate(curve.each[n]), rate(curve.system[n]), short(found.joule), found.from, money(found.million, reader)];
      }),
    },
  };
}
