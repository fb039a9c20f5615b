import { expect, test } from 'vitest';
import { measureTraffic } from '../../bench/measure-traffic.ts';
import { freshDatabase } from '../support/database.ts';

test('a rollout under load: no operation fails, none waits for long, no row is wrong', async () => {
  const database = await freshDatabase({ template: 'empty' });
  try {
    const result = await measureTraffic({
      url: database.url,
      rows: 5_000,
      sessions: 4,
      operationsPerSecond: 20,
      workMilliseconds: 1_000,
      restMilliseconds: 250,
      watchesWaits: true,
    });
    expect(result.stopped).toBe('');
    expect(result.violated).toEqual({});
    expect(result.rowsVerified).toBeGreaterThan(4_900);
    expect([...result.during, ...result.without].filter(({ failed }) => failed !== undefined)).toEqual([]);
    expect(result.during.length).toBeGreaterThan(20);
    expect(result.without.length).toBeGreaterThan(20);
    expect(result.longestWait).toBeLessThanOrEqual(result.allowedWait);
  } finally {
    await database.drop();
  }
}, 300_000);
