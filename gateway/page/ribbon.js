// The ribbon of sound: a row of bars that fills while one speaks, takes ink as words arrive, and shows what plays.

const PITCH = 5; // pixels from bar to bar
const REST = 0.015; // a silent bar is a dot

function ribbon(element) {
  const layers = element.querySelectorAll("svg"); // the same bars three times: pale, inked, played
  const bars = () => Math.max(24, Math.floor(element.clientWidth / PITCH));
  let levels = () => []; // as many as fit

  function draw() {
    const number = bars();
    const heights = levels(number);
    const rest = Array(Math.max(0, number - heights.length)).fill(0);
    const line = [...rest, ...heights]
      .map((level, at) => {
        const half = (REST + level * 0.95) * 46;
        return `M${at + 0.5} ${(50 - half).toFixed(1)}V${(50 + half).toFixed(1)}`;
      })
      .join("");
    for (const layer of layers) {
      layer.setAttribute("viewBox", `0 0 ${number} 100`);
      layer.firstElementChild.setAttribute("d", line);
    }
  }
  new ResizeObserver(draw).observe(element);
  const share = (name, fraction) => element.style.setProperty(name, `${((1 - Math.min(1, Math.max(0, fraction))) * 100).toFixed(2)}%`);

  return {
    // `source(number)` gives at most `number` levels, 0 to 1; fewer stand on the right.
    show(source) {
      levels = source;
      draw();
    },
    clear() {
      levels = () => [];
      draw();
      this.inked(0);
      this.played(0);
    },
    inked: (fraction) => share("--uninked", fraction),
    played: (fraction) => share("--unplayed", fraction),
  };
}

export const band = ribbon(document.getElementById("ribbon"));
