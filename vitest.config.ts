import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

// Tests read what commands print. A pipeline's CI or FORCE_COLOR would put colours into it, and Node warns of both at once.
delete process.env.FORCE_COLOR;
process.env.NO_COLOR = '1';
// Of the processes that tests start: what one has compiled is there for the next. https://nodejs.org/api/module.html#module-compile-cache
process.env.NODE_COMPILE_CACHE ??= join(import.meta.dirname, 'node_modules/.cache/compiled');

/** Whole rehearsals take the longest, minutes a file: begun last, one core would wait for them. */
class RehearsalsFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const late = ({ moduleId }: TestSpecification) => !/rehearsal\/(rehearsal|faults)\.test/.test(moduleId);
    return (await super.sort(files)).sort((one, other) => Number(late(one)) - Number(late(other)));
  }
}

export default defineConfig({
  test: {
    // Two cores are the least that there are; tests spend half of their time waiting for PostgreSQL: two left a quarter of them idle.
    maxWorkers: 3,
    sequence: { sequencer: RehearsalsFirst },
    // What is polled for comes when a busy machine gets to it; after a second, Vitest would give up.
    expect: { poll: { timeout: 120_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['**/node_modules/**', 'test/aws/**', 'test/load/**'],
          globalSetup: ['test/support/postgres-server.ts'],
          // Only what hangs takes so long: the longest took a quarter of it with eight processes to a core.
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'faults',
          include: ['test/faults/faults.test.ts'],
          globalSetup: ['test/support/postgres-server.ts'],
          env: { FAULTS: 'all' },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'load',
          include: ['test/load/**/*.test.ts'],
          globalSetup: ['test/support/postgres-server.ts'],
          testTimeout: 300_000,
          hookTimeout: 60_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'aws',
          include: ['test/aws/**/*.test.ts'],
          // What executions on the emulator do takes minutes.
          expect: { poll: { timeout: 240_000, interval: 200 } },
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
