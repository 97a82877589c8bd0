"use client";

import { useEffect, useRef, useState } from "react";

const BARS = 48;
const EVERY_MS = 60;

interface Props {
  level: () => number | null;
  running: boolean;
}

/** How loud it is and was a moment ago; a flat line where nothing runs, or nobody can say. */
export function LevelMeter({ level, running }: Props) {
  const bars = useRef<HTMLDivElement>(null);
  const [percent, setPercent] = useState(0);

  useEffect(() => {
    const elements = Array.from(bars.current?.children ?? []) as HTMLElement[];
    const heights: number[] = elements.map(() => 0);
    let ticks = 0;
    const draw = () => {
      heights.push(level() ?? 0);
      heights.shift();
      elements.forEach((bar, at) => bar.style.setProperty("--level", String(heights[at] ?? 0)));
      if (ticks++ % 10 === 0) setPercent(Math.round((heights.at(-1) ?? 0) * 100)); // for screen readers, now and then
    };
    const timer = running ? setInterval(draw, EVERY_MS) : undefined;
    return () => {
      clearInterval(timer);
      for (const bar of elements) bar.style.removeProperty("--level");
    };
  }, [level, running]);

  return (
    <div className="meter" data-running={running} role="meter" aria-label="Microphone level" aria-valuemin={0} aria-valuemax={100} aria-valuenow={running ? percent : 0}>
      <div className="bars" ref={bars} aria-hidden="true">
        {Array.from({ length: BARS }, (_, at) => (
          <i key={at} />
        ))}
      </div>
    </div>
  );
}
