// The badge in the header: what model this is, who signed it, on what it was verified. It repeats what the server says
// of the files that it loaded; that a server is honest is for `ferry verify --server` to find out.
import { byId, element, icon } from "./dom.js";
import { passport } from "./server.js";

/// What GET /ferry/passport says: {model, architecture, format, stored, weights, chat_template, parameters, device,
/// verified_as, dtype, program, context, chat, passport, verified}, texts but for the numbers parameters and context,
/// and chat (false: it cannot be asked as in a chat). passport: null, or {root, signed_by (null: nobody), program,
/// reference, training}; training: null, or {steps, tokens, devices, data, held_out_loss}, as in the file
/// (docs/passport.md). verified: a list of {device, dtype, passed, unix_ms (0: nobody wrote down when)}; that which
/// serves is called verified_as there, and computes in dtype.

/// Shows the badge, or none where the server has nothing to say (it is not Ferry's, or does not answer). Returns what
/// it says; nothing: undefined.
export async function showBadge() {
  const badge = byId("passport");
  let facts;
  try {
    facts = await passport();
  } catch {
    badge.hidden = true;
    return undefined;
  }
  const state = stateOf(facts);
  badge.className = `badge ${state.class}`;
  badge.replaceChildren(icon(state.icon), element("span", {}, state.text));
  badge.setAttribute("aria-label", `Passport of the model: ${state.text}`);
  badge.onclick = () => showFacts(facts, state);
  badge.hidden = false;
  return facts;
}

const passed = (facts) => (facts.verified ?? []).filter((one) => one.passed);
const failed = (facts) => (facts.verified ?? []).filter((one) => !one.passed);

/// What is noted of the device and the type that serve; what others did says nothing of these.
const ofServing = (facts) => (facts.verified ?? []).find((one) =>
  facts.verified_as && one.device === facts.verified_as && one.dtype === facts.dtype);

/// What is served otherwise than the passport lists it.
function changes(facts) {
  const list = [];
  if (!["as stored", "none", undefined, null].includes(facts.weights))
    list.push(`the weights are kept as ${facts.weights}`);
  if (facts.chat_template === "another") list.push("conversations are written by another chat template");
  return list;
}

/// The badge: its class, its icon, its words, and the sentences behind it.
export function stateOf(facts) {
  if (!facts.passport)
    return { class: "none", icon: "shield", text: "No passport", summary:
      "This model came without a passport: nothing says what it answered where it was trained. " +
      (facts.format === "gguf"
        ? "Those of GGUF files have none: `ferry convert FILE --out DIR` makes a directory of it, to which " +
          "`ferry passport DIR` gives one."
        : "`ferry passport DIR` gives it one.") };
  const signed = Boolean(facts.passport.signed_by);
  const carries = signed ? "The model carries a signed passport" : "The model carries a passport that nobody signed";
  const serving = ofServing(facts);
  if (serving && !serving.passed)
    return { class: "bad", icon: "shield-alert", text: "Not verified", summary:
      `${carries}, but the device that serves it (${serving.device}, ${serving.dtype}) did not give this model's answers.` };
  const changed = changes(facts);
  if (changed.length > 0)
    return { class: "some", icon: "shield-alert", text: "Changed", summary:
      `${carries}, but what is served is not quite what it lists: ${changed.join(", and ")}. ` +
      "What the passport says, and what was verified, holds for the files." };
  const verified = Boolean(serving);
  const others = failed(facts).length > 0 ? " Another device or type that was asked did not." : "";
  const summary = `${carries}, and the files that are served are those it lists. ` +
    (verified ? "The device that serves them gave this model's answers." + others
      : "The device that serves them, computing in this type, was not verified to give its answers." +
        (failed(facts).length > 0 ? " Another one that was asked did not give them." : ""));
  if (signed && verified) return { class: "good", icon: "shield-check", text: "Signed and verified", summary };
  if (verified) return { class: "good", icon: "shield-check", text: "Verified", summary };
  if (signed) return { class: "some", icon: "shield-check", text: "Signed", summary };
  return { class: "some", icon: "shield", text: "Passport", summary };
}

function showFacts(facts, state) {
  byId("passport-summary").textContent = state.summary;
  const rows = [];
  const row = (name, value, code = false) => {
    if (value === null || value === undefined || value === "") return;
    rows.push(element("dt", {}, name),
      element("dd", {}, code ? element("code", {}, String(value)) : String(value)));
  };
  const whole = (number) => (Number.isFinite(number) ? number.toLocaleString("en") : null);
  row("Model", facts.model);
  row("Architecture", facts.architecture);
  row("Parameters", whole(facts.parameters));
  row("Weights", facts.weights && facts.stored ? `${facts.weights} (in the files: ${facts.stored})` : facts.weights);
  row("Chat template", facts.chat_template);
  row("Served on", facts.dtype ? `${facts.device}, in ${facts.dtype}` : facts.device);
  row("Served by", facts.program);
  row("Context", whole(facts.context) && `${whole(facts.context)} tokens`);
  const { passport: pass } = facts;
  if (pass) {
    row("Signed by", pass.signed_by || "nobody", Boolean(pass.signed_by));
    row("Root", pass.root, true);
    row("Written by", pass.program);
    row("Reference", pass.reference);
    const { training } = pass;
    if (training) {
      row("Trained", `${whole(training.steps)} steps, ${whole(training.tokens)} tokens`);
      row("Trained on", (training.devices ?? []).join("; "));
      row("Held-out loss", training.held_out_loss);
      row("Data", training.data, true);
    }
    row("Verified on", passed(facts).map(describe).join("; ") || "nothing yet");
    row("Failed on", failed(facts).map(describe).join("; "));
  }
  byId("passport-facts").replaceChildren(...rows);
  byId("passport-dialog").showModal();
}

function describe({ device, dtype, unix_ms: time }) {
  const day = time > 0 && time < 8.64e15 ? `, ${new Date(time).toISOString().slice(0, 10)}` : "";
  return `${device} (${dtype}${day})`;
}
