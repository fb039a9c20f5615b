/** What the commands say, and how they refuse. That they work is shown where the app is deployed: test/aws. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, test, vi } from 'vitest';
import { consoleLink } from '../../cli/aws/executions.ts';
import { restorePage } from '../../cli/aws/restore.ts';
import { dryRunScreen, statusScreen } from '../../cli/aws/screen.ts';
import { inputOf } from '../../cli/aws/start.ts';
import { runCommand } from '../../cli/program.ts';
import { commandLine } from '../../lambdas/core/hints.ts';
import type { RolloutStatus } from '../../lambdas/core/operate.ts';

const now = new Date('2026-11-23T12:00:00Z');
const status: RolloutStatus = {
  target: 'public.appointments',
  run: {
    id: '6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11',
    attempt: 2,
    status: 'ACTIVE',
    purpose: 'encrypt',
    execution: 'arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one',
    startedAt: '2026-11-23T09:30:00Z',
    endedAt: null,
    stopReason: null,
    untilPhase: 5,
  },
  phase: { number: 3, title: 'Phase 3 Bulk Migration', startedAt: '2026-11-23T11:50:00Z' },
  rows: { withPersonalData: 1_000_000, encrypted: 612_000, percentage: 61.2 },
  rowsPerSecond: 480,
  millisecondsPerRow: 0.081,
  hoursLeft: 4.5,
  waiting: { for: 'Paused by R. Roe: a sale', since: '2026-11-23T11:55:00Z' },
  tuned: { batchRows: 1_000, pauseSeconds: null },
  holds: [
    {
      id: 'hold-7k2m9q',
      gate: 'Phase 3 Bulk Migration: Gate',
      reason: 'CPU could not be measured',
      askedAt: '2026-11-23T11:58:00Z',
      expiresAt: '2026-11-23T14:00:00Z',
    },
  ],
  lastGate: {
    gate: 'Phase 2 Expanded Batch: SoakGate',
    verdict: 'GO',
    reason: '',
    judgedAt: '2026-11-23T11:50:00Z',
  },
  triggerEnabled: false,
  errors: { encryption: 3 },
};
const place = {
  stack: 'Rollout',
  account: '123456789012',
  region: 'eu-west-1',
  commandLine: (words: string) => commandLine({ stack: 'Rollout', profile: 'night shift' }, words),
};
const plain = (text: string) => stripVTControlCharacters(text);

describe('the screen of status', () => {
  test('says where the rollout is, what it waits for and how to answer', () => {
    expect(plain(statusScreen(status, place, now))).toBe(
      `public.appointments, stack Rollout (account 123456789012, eu-west-1)

ACTIVE  Phase 3 Bulk Migration, begun 10 min ago
████████████████████████░░░░░░░░░░░░░░░░ 61.2 %  612,000 of 1,000,000 rows
480 rows/s · 0.08 ms a row · 4 h 30 min left, waits included
Waiting, begun 5 min ago: Paused by R. Roe: a sale
A person is asked, for 2 h more; no answer is no-go. Phase 3 Bulk Migration: Gate
  CPU could not be measured
  npm run rollout -- decide hold-7k2m9q go --stack Rollout --profile 'night shift'
  npm run rollout -- decide hold-7k2m9q no-go --stack Rollout --profile 'night shift'
  npm run rollout -- decide hold-7k2m9q retry --stack Rollout --profile 'night shift'

Last gate   GO Phase 2 Expanded Batch: SoakGate, 10 min ago
Trigger     off
Errors      3 encryption
Tuned       batches of 1,000 rows
Run         6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11, attempt 2, begun 2 h 30 min ago
Execution   arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one`,
    );
  });

  test('shows nothing that would move the cursor', () => {
    const waiting = { for: 'Paused by R. Roe: \u001b[2J\u0007sale', since: status.run?.startedAt ?? '' };
    const screen = statusScreen({ ...status, waiting }, place, now);
    expect(screen).toContain('\\u{1b}[2J\\u{7}sale');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(screen).not.toMatch(/\u001b\[2J|\u0007/);
  });

  test('of a stopped run it says what can be done next', () => {
    const screen = statusScreen(
      { ...status, run: status.run && { ...status.run, status: 'STOPPED' } },
      place,
      now,
    );
    expect(plain(screen)).toMatch(
      /\n\nWhat happened: npm run rollout -- report --stack Rollout .*\nGo on: npm run rollout -- start --stack Rollout .*, with the same input$/,
    );
  });

  test('before the first run it says how to begin', () => {
    const screen = statusScreen({ ...status, run: null, phase: null, rows: null, holds: [] }, place, now);
    expect(plain(screen)).toBe(
      `public.appointments, stack Rollout (account 123456789012, eu-west-1)\nNo rollout has begun yet. Try one: npm run rollout -- start --dry-run --stack Rollout --profile 'night shift'`,
    );
  });
});

test('the screen of a dry run: every criterion, the forecast, the verdict', () => {
  const screen = dryRunScreen({
    gate: 'DryRun',
    verdict: 'NO_GO',
    reason: 'DryRun: NO_GO: Database backup: expected one younger than 24 h, measured none',
    criteria: [
      { name: 'Trigger', expected: 'disabled', measured: 'disabled', passed: true },
      { name: 'Database backup', expected: 'one younger than 24 h', measured: 'none', passed: false },
      { name: 'CPU', expected: 'at most 80 %', measured: 'no reading', passed: null },
    ],
    forecast: {
      rowsToEncrypt: 1_000_000,
      batches: 200,
      hours: 9.5,
      tableBytes: 3 * 2 ** 28,
      walBytes: 2 ** 31,
    },
  });
  expect(plain(screen)).toBe(`Checklist
  ✓ Trigger: disabled
  ✗ Database backup: none (expected one younger than 24 h)
  ? CPU: no reading (expected at most 80 %)

Forecast
  1,000,000 rows to encrypt in 200 batches, 9 h 30 min with the planned waits
  the table grows by about 768.0 MiB, and 2.0 GiB of WAL is written

NO_GO  Of the checklist above, 1 not met (✗) and 1 not measured (?). Nothing was written. Mend them, then try again.`);
});

describe('the input of start', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'start-'));
  });
  afterAll(() => rm(directory, { recursive: true }));
  const options = { stack: 'Rollout' };
  const file = async (text: string) => {
    const path = join(directory, 'input.json');
    await writeFile(path, text);
    return path;
  };

  test('is the file, with the options added', async () => {
    const input = await file(
      '{"attestations": {"rollbackTested": "R. Roe"}, "acknowledgedTriggers": ["audit"]}',
    );
    expect(
      inputOf({
        ...options,
        input,
        dryRun: true,
        untilPhase: 2,
        priority: 'is_vip',
        attest: { onCallEstablished: 'J. Doe' },
        acknowledgeTrigger: ['touch'],
      }),
    ).toEqual({
      attestations: { rollbackTested: 'R. Roe', onCallEstablished: 'J. Doe' },
      acknowledgedTriggers: ['audit', 'touch'],
      dryRun: true,
      untilPhase: 2,
      priority: 'is_vip',
    });
    expect(inputOf(options)).toEqual({});
    expect(inputOf({ ...options, input: 'config/example-input.json' })).toHaveProperty('attestations');
  });

  test.each([
    [{ untilPhase: 6 }, /untilPhase/],
    [{ untilPhase: Number.NaN }, /untilPhase/],
    [{ attest: { rollbackTestd: 'R. Roe' } }, /rollbackTestd.*expected one of stagingTestsPassed/],
    [{ attest: { rollbackTested: ' ' } }, /rollbackTested.*expected the name/],
    [{ priority: 'true; drop table x' }, /priority/],
    [{ input: '/nowhere.json' }, /no readable file \/nowhere.json, expected .*--input/],
  ])('%j is refused with the name of the field', (wrong, message) => {
    expect(() => inputOf({ ...options, ...wrong })).toThrow(message);
  });

  test.each([
    ['{"untilPhas": 2}', /untilPhas/],
    ['[]', /no JSON object/],
    ['{', /no JSON object/],
    ['{"attestations": "R. Roe"}', /attestations/],
    ['{"acknowledgedTriggers": "audit"}', /acknowledgedTriggers/],
  ])('a file with %s is refused', async (text, message) => {
    const input = await file(text);
    expect(() => inputOf({ ...options, input })).toThrow(message);
  });
});

describe('the page for restoring', () => {
  const facts = {
    place: 'stack Rollout (account 123456789012, eu-west-1)',
    region: 'eu-west-1',
    kind: 'instance',
    identifier: 'appointments',
    snapshot: 'rds:appointments-2026-11-23',
    snapshotAt: '2026-11-23T03:00:00.000Z',
    engine: 'postgres',
    instanceClass: 'db.r6g.large',
    subnetGroup: 'private',
    securityGroups: ['sg-1', 'sg-2'],
    parameterGroup: 'tuned',
  } as const;

  test('has the commands for this instance', () => {
    const page = restorePage(facts, place);
    expect(page).toContain(`aws rds restore-db-instance-from-db-snapshot \\
  --db-instance-identifier appointments-restored \\
  --db-snapshot-identifier rds:appointments-2026-11-23 \\
  --db-instance-class db.r6g.large \\
  --db-parameter-group-name tuned \\
  --db-subnet-group-name private \\
  --vpc-security-group-ids sg-1 sg-2 \\
  --deletion-protection \\
  --region eu-west-1`);
    expect(page.replace('<angle brackets>', '')).not.toMatch(/<[a-z ]+>/);
  });

  test('of a cluster, restores the cluster and then an instance in it', () => {
    const page = restorePage({ ...facts, kind: 'cluster', engine: 'aurora-postgresql' }, place);
    expect(page).toMatch(
      /restore-db-cluster-from-snapshot[\s\S]*create-db-instance[\s\S]*wait db-instance-available/,
    );
    expect(page).toContain('--engine aurora-postgresql');
  });

  test('marks what could not be read', () => {
    const page = restorePage(
      {
        ...facts,
        identifier: undefined,
        snapshot: undefined,
        snapshotAt: undefined,
        subnetGroup: undefined,
        securityGroups: [],
      },
      place,
    );
    for (const placeholder of ['<database>', '<snapshot>', '<subnet group>', '<security groups>'])
      expect(page).toContain(placeholder);
  });
});

test('console links lead to the partition', () => {
  const arn = (partition: string, region: string) =>
    `arn:${partition}:states:${region}:123456789012:execution:Rollout-EncryptionRollout:one`;
  expect(consoleLink(arn('aws', 'eu-west-1'))).toBe(
    `https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/${arn('aws', 'eu-west-1')}`,
  );
  expect(consoleLink(arn('aws-cn', 'cn-north-1'))).toMatch(
    /^https:\/\/cn-north-1.console.amazonaws.cn\/states/,
  );
  expect(consoleLink(arn('aws-us-gov', 'us-gov-west-1'))).toMatch(
    /^https:\/\/us-gov-west-1.console.amazonaws-us-gov.com\/states/,
  );
});

/** AWS as the commands find it: what each action is answered, by its name or the path of a function. */
class Cloud {
  readonly asked: string[] = [];
  answers: Record<string, { readonly status?: number; readonly body: string; readonly error?: string }> = {};
  private readonly server: Server;
  url = '';

  constructor() {
    this.server = createServer(async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString();
      const target = request.headers['x-amz-target'];
      const action =
        new URLSearchParams(body).get('Action') ??
        (typeof target === 'string' ? target.split('.').at(-1) : undefined) ??
        'Invoke';
      this.asked.push(action === 'Invoke' ? `Invoke ${JSON.parse(body).command}` : action);
      const { status = 200, error, body: text } = this.answers[action] ?? { status: 500, body: '' };
      response
        .writeHead(status, {
          'content-type': text.startsWith('<') ? 'text/xml' : 'application/json',
          ...(error === undefined ? {} : { 'x-amz-function-error': error }),
        })
        .end(text);
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const identity = {
  body: '<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/roe</Arn><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>',
};
const stackOf = (outputs: Record<string, string>) => ({
  body: `<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>Rollout</StackName><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>${Object.entries(
    outputs,
  )
    .map(
      ([key, value]) => `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue></member>`,
    )
    .join('')}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`,
});
const stack = stackOf({
  StateMachineArn: 'arn:aws:states:eu-west-1:123456789012:stateMachine:Rollout-EncryptionRollout',
  OperateFunctionName: 'Rollout-Operate',
});
const failure = (code: string, message: string) => ({
  status: 400,
  body: `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>${message}</Message></Error></ErrorResponse>`,
});

describe('against AWS', () => {
  const cloud = new Cloud();
  beforeAll(() => cloud.start());
  afterAll(() => cloud.stop());
  afterEach(() => {
    cloud.asked.length = 0;
  });

  /** `npm run rollout -- …`, without a terminal, and without what the machine knows of AWS. */
  async function rollout(args: string[], environment: Record<string, string | undefined> = {}) {
    const said = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      vi.spyOn(process[name], 'write').mockImplementation((text) => {
        said[name] += text;
        return true;
      });
    const before = { ...process.env };
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
    Object.assign(process.env, {
      AWS_CONFIG_FILE: '/nowhere',
      AWS_SHARED_CREDENTIALS_FILE: '/nowhere',
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL: cloud.url,
      AWS_MAX_ATTEMPTS: '1',
      AWS_REGION: 'eu-west-1',
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      ...environment,
    });
    try {
      return { code: await runCommand([...args, '--stack', 'Rollout']), ...said };
    } finally {
      process.env = before;
      process.exitCode = undefined;
      vi.restoreAllMocks();
    }
  }
  const refused = (stderr: RegExp) => ({ code: 1, stdout: '', stderr: expect.stringMatching(stderr) });

  it('says in one line what is missing: region, credentials, stack, outputs, rights', async () => {
    cloud.answers = { GetCallerIdentity: identity, DescribeStacks: stack };
    expect(await rollout(['status'], { AWS_REGION: '' })).toMatchObject(
      refused(/^Found no AWS region, expected one like .*--region.*\n$/),
    );
    expect(await rollout(['status'], { AWS_ACCESS_KEY_ID: '' })).toMatchObject(
      refused(/^Found no usable AWS credentials .*expected .*--profile.*\n$/),
    );
    expect(await rollout(['status', '--profile', 'roe'])).toMatchObject(
      refused(/^Found no usable AWS credentials .*roe.*\n$/),
    );
    cloud.answers.GetCallerIdentity = failure('ExpiredToken', 'The security token is expired');
    expect(await rollout(['status'])).toMatchObject(
      refused(/^Found no usable AWS credentials \(.*expired.*\n$/),
    );
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: failure('ValidationError', 'Stack with id Rollout does not exist'),
    };
    expect(await rollout(['status'])).toMatchObject(
      refused(/^Found no stack Rollout in account 123456789012, eu-west-1, expected .*--stack.*\n$/),
    );
    cloud.answers.DescribeStacks = stackOf({ StateMachineArn: 'arn' });
    expect(await rollout(['status'])).toMatchObject(
      refused(/^Found the stack Rollout \(CREATE_COMPLETE\) without .*OperateFunctionName, expected .*\n$/),
    );
    cloud.answers.DescribeStacks = failure(
      'AccessDenied',
      'not authorized to perform cloudformation:DescribeStacks',
    );
    expect(await rollout(['status'])).toMatchObject(
      refused(/^AWS refused: not authorized .*\nExpected the rights of an operator: docs\/operator-guide.md/),
    );
  });

  it('shows the message of a function that refuses, and nothing else', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      Invoke: {
        error: 'Unhandled',
        body: JSON.stringify({
          errorType: 'InvalidInput',
          errorMessage: 'There is none under way.',
          trace: ['at x'],
        }),
      },
    };
    expect(await rollout(['pause', '--yes', '--json'])).toEqual({
      code: 1,
      stdout: '',
      stderr: 'There is none under way.\n',
    });
  });

  it('changes nothing without a terminal and without --yes, and says what it would do', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      Invoke: { body: JSON.stringify({ done: '', status }) },
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn: status.run?.execution }] }) },
    };
    const id = String(status.run?.id);
    const nothing = { ...cloud.answers, ListExecutions: { body: JSON.stringify({ executions: [] }) } };
    const one = cloud.answers;
    const changing = [
      ['start'],
      ['pause'],
      ['resume'],
      ['tune', '--batch-rows', '100'],
      ['decide', 'hold-7k2m9q', 'go'],
      ['abort'],
      ['rollback', '--option', 'keep'],
      ['rollback', '--option', 'clear'],
      ['rollback', '--option', 'clear', '--confirm', id],
    ];
    for (const command of changing) {
      cloud.answers = command[0] === 'start' ? nothing : one;
      expect(await rollout(command), command.join(' ')).toMatchObject(
        refused(/^Found no terminal to ask on, and no --.*stack Rollout \(account 123456789012, eu-west-1\)/),
      );
    }
    expect(new Set(cloud.asked)).toEqual(
      new Set(['GetCallerIdentity', 'DescribeStacks', 'Invoke status', 'ListExecutions']),
    );
  });

  it('starts nothing beside an execution under way', async () => {
    const executionArn = status.run?.execution;
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn }] }) },
    };
    expect(await rollout(['start', '--yes', '--region', 'eu-west-1'])).toMatchObject(
      refused(/^Found an execution under way: arn:.*rollout -- status --stack Rollout --region eu-west-1\)/),
    );
    expect(cloud.asked).not.toContain('StartExecution');
  });

  it('prints one JSON document, or the screen', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      Invoke: { body: JSON.stringify({ done: 'Paused.', status }) },
    };
    expect(JSON.parse((await rollout(['status', '--json'])).stdout)).toEqual(status);
    // Coloured where a terminal is, or a pipeline.
    expect(stripVTControlCharacters((await rollout(['pause', '--yes'])).stdout)).toMatch(
      /^Paused.\n\npublic.appointments, stack Rollout/,
    );
  });

  it.each([
    [
      ['tune', '--batch-rows', '0'],
      /--batch-rows.*'0' is invalid. Expected a whole number from 1 to 50000, or plan/,
    ],
    [['tune', '--pause-seconds', ''], /--pause-seconds.*Expected a whole number from 0 to 3600, or plan/],
    [['tune'], /^Found nothing to tune, expected --batch-rows/],
    [['decide', 'hold-7k2m9q', 'maybe'], /'maybe' is invalid.*Allowed choices are go, no-go, retry/],
    [['rollback'], /required option '--option <name>' not specified/],
    [['rollback', '--option', 'some'], /Allowed choices are keep, clear, restore/],
    [['start', '--attest', 'R. Roe'], /Expected <field>=<name>/],
  ])('%j is refused before AWS is asked', async (args, message) => {
    expect(await rollout(args)).toMatchObject(refused(message));
    expect(cloud.asked).toEqual([]);
  });
});
