/** What the commands say, and how they refuse. That they work is shown where the app is deployed: test/aws. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../cli/program.ts';
import { status } from './status.ts';

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
      refused(/^Found nothing as the AWS region, expected one like .*--region.*\n$/),
    );
    expect(await rollout(['status', '--region', 'eu west'])).toMatchObject(
      refused(/^Found "eu west" as the AWS region, expected one like /),
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
    expect(await rollout(['status'], { AWS_REGION: '', AWS_DEFAULT_REGION: 'ap-south-1' })).toMatchObject(
      refused(/^Found no stack Rollout in account \d+, ap-south-1, /),
    );
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

  it('wakes the function when nobody has asked it for weeks', async () => {
    const asleep = { status: 502, body: JSON.stringify({ __type: 'ResourceNotReadyException' }) };
    const answers = [asleep, { body: JSON.stringify({ done: 'Paused.', status }) }];
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      get Invoke() {
        return answers.shift() ?? asleep;
      },
    };
    expect(await rollout(['pause', '--yes', '--json'])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('"done": "Paused."'),
      stderr: expect.stringMatching(/^Nobody has asked for weeks, .*\n$/),
    });
  });

  it('stops an execution without waiting for that', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn: status.run?.execution }] }) },
      Invoke: { status: 502, body: JSON.stringify({ __type: 'ResourceNotReadyException' }) },
    };
    // Stopping is refused here: that it comes to it is what counts.
    cloud.answers.StopExecution = { status: 400, body: JSON.stringify({ __type: 'AccessDeniedException' }) };
    expect(await rollout(['abort', '--yes'])).toMatchObject(
      refused(/^The records do not answer.*AWS refused/s),
    );
    expect(cloud.asked.filter((action) => action === 'Invoke status')).toHaveLength(1);
    expect(cloud.asked).toContain('StopExecution');
  });

  it('abort leaves a rollout that is complete alone, also one that was complete just before it was stopped', async () => {
    const answer = (of: string) => ({
      body: JSON.stringify({ done: '', status: { ...status, run: { ...status.run, status: of } } }),
    });
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      Invoke: answer('COMPLETED'),
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn: status.run?.execution }] }) },
      StopExecution: { body: '{}' },
    };
    const complete = refused(/complete, expected one to stop: its trigger stays on.*rollback --option keep/);
    expect(await rollout(['abort', '--yes'])).toMatchObject(complete);
    expect(cloud.asked).not.toContain('StopExecution');
    const answers = [answer('ACTIVE')];
    Object.defineProperty(cloud.answers, 'Invoke', { get: () => answers.pop() ?? answer('COMPLETED') });
    expect(await rollout(['abort', '--yes'])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/Stopped arn:.*complete, expected one to stop/s),
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

  it('starts an execution, and prints where it is', async () => {
    const executionArn = 'arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one';
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [] }) },
      StartExecution: { body: JSON.stringify({ executionArn, startDate: 1 }) },
    };
    expect(await rollout(['start', '--yes'])).toEqual({
      code: 0,
      stdout: expect.stringContaining(executionArn),
      stderr: '',
    });
  });

  it('Ctrl+C ends what follows an execution, and says that the execution does not end with it', async () => {
    const execution = (answer: object) => ({ body: JSON.stringify(answer) });
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      StartExecution: execution({ executionArn: 'one', startDate: 1 }),
      DescribeExecution: execution({ status: 'RUNNING' }),
    };
    let exitCode: unknown;
    vi.spyOn(process, 'exit').mockImplementation((code) => {
      exitCode = code;
      cloud.answers.DescribeExecution = execution({ status: 'FAILED', cause: 'the test is over' });
      return undefined as never;
    });
    const ending = rollout(['start', '--dry-run']);
    await vi.waitUntil(() => cloud.asked.includes('DescribeExecution'), { timeout: 10_000 });
    process.emit('SIGINT');
    expect((await ending).stderr).toContain('The execution goes on.');
    expect(exitCode).toBe(130);
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
    [['rollback'], /^Found no --option, expected keep .*, clear .* or restore/],
    [['rollback', '--option', 'some'], /Allowed choices are keep, clear, restore/],
    [['start', '--attest', 'R. Roe'], /Expected <field>=<name>/],
  ])('%j is refused before AWS is asked', async (args, message) => {
    expect(await rollout(args)).toMatchObject(refused(message));
    expect(cloud.asked).toEqual([]);
  });
});
