// Who is in the rollout: each user has a fixed place between 0 and 100, and is in once the percentage passes it.

const PLACES = 10_000;
const utf8 = new TextEncoder();

/** FNV-1a, stirred at the end so that ids that differ in their last letter alone land far apart. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of utf8.encode(text)) value = Math.imul(value ^ byte, 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** A user's place, 0 up to 100 in steps of 0.01; never depends on the percentage, so that raising it moves nobody back. */
export function place(userId: string): number {
  return (hash(`transcription:${userId}`) % PLACES) / (PLACES / 100);
}

/** Whether a user is among the first `percent` of 100. */
export function inRollout(userId: string, percent: number): boolean {
  return place(userId) < percent;
}
