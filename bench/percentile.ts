/** Latency at or below which this share of the operations is, in milliseconds; undefined when there are none. */
export function percentile(
  operations: readonly { readonly milliseconds: number }[],
  share: number,
): number | undefined {
  const sorted = operations.map(({ milliseconds }) => milliseconds).sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
