// The headline: what was recorded, and how much of everything.
const showHeadline = () => {
  const { headline, recording } = data;
  byId("title").textContent = data.title;
  const vcpus = plural(headline.vcpus, "vCPU");
  const time = headline.nanoseconds === null ? "" : ` over ${duration(headline.nanoseconds)} of its time`;
  byId("lead").textContent = headline.instructions === 0
    ? "This recording has no instructions."
    : `${exact(headline.instructions)} instructions of ${vcpus}${recording.cpu ? ` of a ${recording.cpu}` : ""}${time}, each of them stepped.${data.selection ? ` Chosen: ${data.selection}.` : ""}`;
  const states = {
    unfinished: "The recording was not finished: whoever recorded was ended in the middle. Everything up to the last whole chunk is here.",
    damaged: `The recording is damaged: ${recording.damage}. What could be read is here.`,
  };
  if (states[recording.state]) {
    byId("state").textContent = states[recording.state];
    byId("state").hidden = false;
  }
  showFigures(headline, recording);
  showFacts(headline, recording);
  byId("footer").textContent = `Made by Stepwell ${data.version}. Everything on this page is in this file.`;
};

const showFigures = (headline, recording) => {
  const { failed, stores } = data.exclusives;
  const perInstruction = headline.instructions ? (recording.bytes / headline.instructions).toFixed(3) : "0";
  const figures = [
    ["Instructions", short(headline.instructions), exact(headline.instructions)],
    ["Functions", short(headline.functions), `${exact(headline.distinct)} different instructions`],
    ["Calls", short(headline.calls), exact(headline.calls)],
    [headline.vcpus === 1 ? "vCPU" : "vCPUs", exact(headline.vcpus), `the guest has ${recording.vcpus}`],
    ["Interrupts", short(headline.interrupts), exact(headline.interrupts)],
    ["Exceptions", short(headline.exceptions), "system calls, faults and others that are no interrupts"],
    ["Task switches", short(headline.task_switches), exact(headline.task_switches)],
    ["Store-exclusives", short(stores), `${exact(failed)} failed`],
  ];
  if (headline.nanoseconds !== null) figures.push(["Virtual time", duration(headline.nanoseconds), `${exact(headline.nanoseconds)} ns`]);
  if (headline.user) figures.push(["In user space", percent(headline.user, headline.instructions), exact(headline.user)]);
  if (recording.bytes) figures.push(["Bytes an instruction", perInstruction, size(recording.bytes)]);
  byId("figures").append(...figures.map(([label, value, title]) =>
    make("div", { title }, make("dt", {}, label), make("dd", {}, value))));
};

const showFacts = (headline, recording) => {
  const recorded = { pc: "program counters", regs: "program counters and registers", mem: "program counters, registers and memory" };
  const facts = [
    ["CPU", recording.cpu],
    ["vCPUs of the guest", exact(recording.vcpus)],
    ["Command line", recording.command_line || "(empty)"],
    ["Interrupts", { into: "into: handlers are part of it", over: "over: handlers ran unrecorded", hold: "hold: none were delivered" }[recording.irq] ?? recording.irq],
    ["Clock", recording.time],
    ["Recorded", recorded[recording.recorded] ?? recording.recorded],
    ["File", recording.bytes ? `${size(recording.bytes)}, ${exact(headline.runs)} runs` : ""],
    ["Different instructions", exact(headline.distinct)],
    ["Privileged calls", headline.privileged_calls ? exact(headline.privileged_calls) : ""],
    ["Exceptions", headline.exception_classes.map(([name, count]) => `${name}: ${exact(count)}`).join("; ")],
    ["Recorded by", recording.recorded_by ? `Stepwell ${recording.recorded_by}` : ""],
    ...data.notes.map((note) => ["Note", note]),
  ];
  for (const [term, text] of facts) {
    if (text) byId("facts").append(make("dt", {}, term), make("dd", {}, text));
  }
};
