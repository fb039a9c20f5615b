/** `start --wait` as a user runs it: a process of its own, in a terminal or piped, with AWS at the other end of the line. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { RolloutStatus } from '../../../lambdas/core/operating/operate.ts';
import { Bench } from '../../rehearsal/process.ts';
import { framesOf, hasTerminals, Screen } from '../../support/terminal.ts';
import { Cloud, identity, stack } from '../cloud.ts';
import { status as asked } from '../status.ts';

const [columns, rows] = [80, 24];
const start = ['start', '--wait', '--yes', '--stack', 'Rollout'];
const execution = asked.run?.execution ?? '';
const soaking: RolloutStatus = {
  ...asked,
  waiting: null,
  holds: [],
  accepted: [],
  soak: { minutes: 120, endsAt: '2026-11-23T13:12:00Z', everyMinutes: 5 },
};
const complete: RolloutStatus = {
  ...soaking,
  soak: null,
  rowsPerSecond: null,
  hoursLeft: null,
  pressure: null,
  run: {
    ...(asked.run as NonNullable<typeof asked.run>),
    status: 'COMPLETED',
    endedAt: '2026-11-23T16:00:00Z',
  },
};

const cloud = new Cloud();
let bench: Bench;
beforeAll(async () => {
  await cloud.start();
  bench = new Bench({
    AWS_ENDPOINT_URL: cloud.url,
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  });
});
afterAll(async () => {
  await bench.clear();
  cloud.stop();
});
afterEach(() => {
  cloud.asked.length = 0;
  cloud.sent.length = 0;
});

/** A rollout that shows these one after the other, each once it was looked at; its execution succeeds with the last. */
function rollingOut(...statuses: RolloutStatus[]) {
  const left = [...statuses];
  const json = (body: unknown) => ({ body: JSON.stringify(body) });
  const state = {
    next: () => left.length > 1 && left.shift(),
    get isOver() {
      return left.length === 1;
    },
  };
  cloud.answers = {
    GetCallerIdentity: identity,
    DescribeStacks: stack,
    ListExecutions: json({ executions: [] }),
    StartExecution: json({ executionArn: execution, startDate: 1 }),
    DescribeExecution: async () =>
      json({ executionArn: execution, status: state.isOver ? 'SUCCEEDED' : 'RUNNING', output: '{}' }),
    Invoke: async (body) => {
      const { command } = JSON.parse(body);
      const [status] = left;
      // A question stays until it is answered.
      if (command === 'decide' || status?.holds.length === 0) state.next();
      return json({ done: command === 'decide' ? 'It is decided.' : '', status });
    },
  };
}

test.skipIf(!hasTerminals)(
  'in a terminal of 80 columns shows frame by frame how far it is, has its question answered by keys, and ends with it',
  async () => {
    rollingOut(soaking, asked, soaking, complete);
    const watched = bench.rolloutInTerminal(columns, rows, ...start);
    const screen = new Screen(columns, rows);
    watched.child.stdout?.setEncoding('utf8').on('data', (drawn) => screen.write(drawn));
    const said = (text: string) =>
      vi.waitUntil(() => screen.text.replaceAll(/\s+/g, ' ').includes(text), { timeout: 110_000 });
    await said('Press g for go, n for no-go, r to measure once more.');
    watched.child.stdin?.write('n');
    await said('This answers hold-7k2m9q with no-go. Press y to do so');
    watched.child.stdin?.write('y');
    expect(await watched.exit(), watched.output).toBe(0);

    expect(cloud.sent).toContainEqual(
      expect.objectContaining({ command: 'decide', hold: 'hold-7k2m9q', decision: 'no-go' }),
    );
    const frames = framesOf(watched.output, columns, rows);
    expect(frames.length).toBeGreaterThanOrEqual(4);
    for (const [index, frame] of frames.entries()) {
      // Nothing is left over of the frames before: one rollout, in one state. The result scrolls the last one.
      const title = /stack Rollout \(account 123456789012, eu-west-1\)/g;
      if (index < frames.length - 1) expect(frame.match(title), frame).toHaveLength(1);
      expect(frame.match(/^(ACTIVE|COMPLETED) /gm), frame).toHaveLength(1);
    }
    expect(frames[0]).toContain('▶ Phase 3 Bulk Migration, soaking\n');
    expect(frames.at(-1)).toMatch(/^COMPLETED [\s\S]*\nSUCCEEDED\n$/);
  },
  120_000,
);

test.skipIf(!hasTerminals)(
  'q ends the watching alone',
  async () => {
    rollingOut(asked, complete);
    const watched = bench.rolloutInTerminal(columns, rows, ...start);
    await watched.until('no-go');
    watched.child.stdin?.write('q');
    expect(await watched.exit(), watched.output).toBe(130);
    expect(watched.output).toContain('The execution goes on.');
    expect(cloud.asked).not.toContain('StopExecution');
  },
  120_000,
);

test('piped, is a line for each change, and the end as a result', async () => {
  rollingOut(soaking, soaking, complete);
  const piped = bench.rollout(...start);
  let result = '';
  piped.child.stdout?.on('data', (chunk) => {
    result += chunk;
  });
  expect(await piped.exit(), piped.output).toBe(0);
  expect(result).toMatch(/^SUCCEEDED\npublic\.appointments, stack Rollout \(.*\)\n\nCOMPLETED /);
  const meanwhile = piped.output.replace(result, '').trimEnd().split('\n');
  expect(meanwhile.slice(0, 2)).toEqual([`Started ${execution}`, expect.stringMatching(/^https:\S+$/)]);
  expect(meanwhile.slice(2)).toEqual([
    expect.stringMatching(/ UTC ACTIVE Phase 3 Bulk Migration, 60 % or more, soaking$/),
    expect.stringMatching(/ UTC COMPLETED Phase 3 Bulk Migration, 60 % or more$/),
  ]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what a terminal takes for a command
  expect(piped.output).not.toMatch(/\u001b/);
}, 120_000);
