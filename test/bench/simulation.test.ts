import { expect, test } from 'vitest';
import { simulate } from '../../bench/simulation.ts';
import { definitions } from '../infra/machines.ts';

const server = { vcpus: 8, rowMicroseconds: 59, auditMicroseconds: 40, others: 0 };
const figuresOf = async (rows: number, pace: 'plan' | 'adaptive', others = 0) =>
  (await simulate(definitions, { ...server, rows, pace, others })).figures;

test('a hundred million rows take as long as the work, in short histories', async () => {
  const adaptive = await figuresOf(1e8, 'adaptive');
  expect(adaptive).toMatchObject({ status: 'SUCCEEDED', rows: 1e8 });
  // 59 µs a row, at work for 0.9 of the time.
  const work = (1e8 * 59e-6) / 3_600;
  expect(adaptive.hoursOfBatches).toBeGreaterThan(work);
  expect(adaptive.hoursOfBatches).toBeLessThan(1.3 * work);
  expect(adaptive.longestHistory).toBeLessThan(2_000);
});

test("the plan's pace is bound by its pauses", async () => {
  const planned = await figuresOf(1e6, 'plan');
  expect(planned).toMatchObject({ status: 'SUCCEEDED' });
  // 6.5 hours of soaks, and ten seconds after each batch of 5,000, in phase 2 of 2,000.
  const batches = 245_000 / 2_000 + 755_000 / 5_000;
  expect(planned.hours).toBeGreaterThan(6.5 + ((batches - 4) * 10) / 3_600);
  expect(planned.longestHistory).toBeLessThan(2_000);
});

test('where others need the server it gives way, and takes longer', async () => {
  const alone = await figuresOf(1e7, 'adaptive');
  const beside = await figuresOf(1e7, 'adaptive', 2.2);
  expect(beside.status).toBe('SUCCEEDED');
  expect(beside.hoursOfBatches).toBeGreaterThan(1.5 * alone.hoursOfBatches);
});
