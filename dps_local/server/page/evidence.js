// What a strength γ is worth, in words, by what was measured of a person.

const STEPS = 60; // of the slider
const OWN_STEP = 20; // where the γ stands that was measured
const LARGEST = { amplify: 0.6, contrast: 3 }; // of the slider, where no γ was measured

export function steerable(dps) {
  return Boolean(dps?.mode);
}

// The slider of a person: how many steps it has, and at which it stands at first.
export function slider(dps) {
  return { steps: STEPS, own: dps?.gamma ? OWN_STEP : 0 };
}

// The γ of a step.
export function gammaAt(dps, step) {
  const largest = dps.gamma ? (dps.gamma * STEPS) / OWN_STEP : LARGEST[dps.mode];
  return Number(((largest * step) / STEPS).toPrecision(2));
}

// What is sent to the server: nothing for a person's own γ.
export function gammaOf(dps, step) {
  return !steerable(dps) || step === slider(dps).own ? undefined : gammaAt(dps, step);
}

// Whether heads steer at a step, so that there is something to explain.
export function steers(dps, step) {
  return steerable(dps) && gammaAt(dps, step) > 0;
}

export function signed(number, digits = 3) {
  const text = Math.abs(number).toFixed(digits);
  return `${number < 0 && Number(text) ? "−" : "+"}${text}`;
}

export function sentence(dps, step) {
  if (!dps) return "The plain model: it sees no profile, and nothing steers it.";
  if (!dps.scored) return `Not scored with this model: run \`${dps.score_command}\`.`;
  if (!steerable(dps)) return "The model sees the profile; there are no texts of yours that could steer it.";
  const { own } = slider(dps);
  if (step === own) {
    return own ? `${capital(worth(dps))}.` : `Off, as it may not help: ${worth(dps)}. Move the slider to steer all the same.`;
  }
  if (step === 0) return "The plain model, which sees no profile either.";
  if (!own) return "Nothing was measured at this γ; by default steering is off here.";
  const than = step < own ? "Weaker" : "Stronger";
  return `${than} than your γ ${gammaAt(dps, own)}, which is ${worth(dps)}. Nothing was measured at this γ.`;
}

function worth({ calibration, expected }) {
  if (calibration) {
    const { gain, low, high, n, probability } = calibration;
    const error = Math.max(high - gain, gain - low).toFixed(3); // the farther end of the 95 % interval
    const helps = probability === null ? "" : ` (by all that is known, ${(100 * probability).toFixed(0)} % sure to help)`;
    return `worth ${signed(gain)} ± ${error} nats a token on your ${n} held-out texts${helps}`;
  }
  if (expected) {
    const { gain, deviation } = expected;
    return `expected to be worth ${signed(gain)} ± ${deviation.toFixed(3)} nats a token, before anything was measured`;
  }
  return "of a worth that was not measured";
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
