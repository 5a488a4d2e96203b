// Runs as comparisons want them, each from a script of its own that calls tokrig.run with its data:
// a page opened from a disk can load no JSON.
"use strict";

window.tokrig = window.tokrig || {};

{
  const { rules } = tokrig;
  const RUN_ID = /^[a-z0-9][a-z0-9._-]*$/;
  const runs = new Map();
  tokrig.run = (data) => runs.set(data.id, data);

  /** Done when the run is there, or will not come. */
  const load = (id) =>
    new Promise((done) => {
      if (!RUN_ID.test(id) || runs.has(id)) return done();
      const script = tokrig.make("script", { src: tokrig.url(`runs/${id}.js`) });
      script.addEventListener("load", done);
      script.addEventListener("error", done);
      document.head.append(script);
    });

  /** The results of a run at a concurrency, of one shape if given, as Python's subject() narrows
   * them. */
  const narrowed = ({ id, concurrency, shape }) => {
    const run = runs.get(id);
    const cells = run.cells.filter(
      (cell) => cell.concurrency === concurrency && (shape === null || cell.shape === shape),
    );
    const keys = { ...run.keys, concurrency: String(concurrency) };
    return { ...run, keys, cells, noise: rules.noise[run.keys["rig.id"]] ?? {} };
  };

  tokrig.runs = { RUN_ID, load, narrowed, runs };
}
