/** What the commands say, and how they refuse. That they work is shown where the app is deployed: test/aws. */
import { stripVTControlCharacters } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { Cloud, failure, identity, stack, stackOf } from '../cloud.ts';
import { ofSeveral, status } from '../status.ts';

describe('against AWS', () => {
  const cloud = new Cloud();
  beforeAll(() => cloud.start());
  afterAll(() => cloud.stop());
  afterEach(() => {
    cloud.asked.length = 0;
  });

  const rollout: Cloud['rollout'] = (...given) => cloud.rollout(...given);
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
      'not authorized to perform cloudformation:DescribeStacks.',
    );
    expect(await rollout(['status'])).toMatchObject(
      refused(
        /^AWS refused: not authorized \S+ \S+ \S+:DescribeStacks\.\nExpected the rights of an operator: docs\/operator-guide.md/,
      ),
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
    const complete = refused(/complete, expected one to stop: its triggers stay on.*rollback --option keep/);
    expect(await rollout(['abort', '--yes'])).toMatchObject(complete);
    expect(cloud.asked).not.toContain('StopExecution');
    const answers = [answer('ACTIVE')];
    Object.defineProperty(cloud.answers, 'Invoke', { get: () => answers.pop() ?? answer('COMPLETED') });
    expect(await rollout(['abort', '--yes'])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/Stopped arn:.*complete, expected one to stop/s),
    });
  });

  it('abort waits for a rollback that is under way, also where no phase had begun', async () => {
    const [table] = status.tables as [(typeof status.tables)[0]];
    const answer = (of: string, triggerEnabled: boolean) => ({
      body: JSON.stringify({
        done: '',
        status: { ...status, run: { ...status.run, status: of }, tables: [{ ...table, triggerEnabled }] },
      }),
    });
    const answers = [
      answer('ACTIVE', true),
      answer('ACTIVE', true),
      answer('STOPPING', true),
      answer('STOPPING', false),
    ];
    let clock = 0;
    const now = vi.spyOn(performance, 'now').mockImplementation(() => clock);
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn: status.run?.execution }] }) },
      // After the latest phase had begun, which is an earlier attempt's.
      DescribeExecution: { body: JSON.stringify({ status: 'ABORTED', startDate: 4_000_000_000 }) },
      StopExecution: { body: '{}' },
      get Invoke() {
        clock += 20_000;
        return answers.shift() ?? answer('STOPPED', false);
      },
    };
    const said = await rollout(['abort', '--yes']);
    now.mockRestore();
    expect(said).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^Stopped, trigger off, 1 min 20 s after the request\./),
    });
  });

  it('abort says which triggers go off, and which stay on', async () => {
    const stopped = { ...ofSeveral, run: { ...ofSeveral.run, status: 'STOPPED' } };
    const answers = [stopped, ofSeveral].map((each) => ({
      body: JSON.stringify({ done: '', status: each }),
    }));
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [{ executionArn: status.run?.execution }] }) },
      DescribeExecution: { body: JSON.stringify({ status: 'ABORTED', startDate: 1 }) },
      StopExecution: { body: '{}' },
      Invoke: { body: '' },
    };
    const asked = () =>
      rollout(['abort']).then(({ stderr }) => /cancels its batches and (.*)\. Add --yes/.exec(stderr)?.[1]);
    const about = (tables: typeof ofSeveral.tables) => {
      cloud.answers.Invoke = { body: JSON.stringify({ done: '', status: { ...ofSeveral, tables } }) };
    };
    const [complete, ...others] = ofSeveral.tables as [
      (typeof ofSeveral.tables)[0],
      ...typeof ofSeveral.tables,
    ];
    about(ofSeveral.tables);
    expect(await asked()).toBe(
      'switches the trigger of billing.users and public.orders off; that of public.appointments stays on, as it was before',
    );
    about(others);
    expect(await asked()).toBe('switches their triggers off');
    about(others.slice(0, 1));
    expect(await asked()).toBe('switches the trigger off');
    about([complete]);
    expect(await asked()).toBe('leaves the trigger on, as it was before');
    about([complete, complete]);
    expect(await asked()).toBe('leaves their triggers on, as they were before');

    Object.defineProperty(cloud.answers, 'Invoke', { get: () => answers.pop() ?? answers[0] });
    expect(await rollout(['abort', '--yes'])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        /^Stopped, triggers off but that of public.appointments, left on, \S+ m?s after the request\./,
      ),
    });
  });

  it('clears the tables that it has named', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      Invoke: { body: JSON.stringify({ done: '', execution: status.run?.execution, status: ofSeveral }) },
      DescribeExecution: { body: JSON.stringify({ status: 'SUCCEEDED' }) },
    };
    const clear = ['rollback', '--option', 'clear', '--confirm', String(status.run?.id)];
    expect(await rollout(clear)).toMatchObject(
      refused(
        /This removes all ciphertext of billing.users, of the rollout of 3 tables: public.appointments, /,
      ),
    );
    await rollout([...clear, '--yes']);
    expect(cloud.sent.at(-1)).toMatchObject({ command: 'status' });
    expect(cloud.sent).toContainEqual(
      expect.objectContaining({ command: 'clear', tables: ['billing.users'] }),
    );
    await rollout([...clear, '--yes', '--table', 'public.orders', '--table', 'public.appointments']);
    expect(cloud.sent).toContainEqual(
      expect.objectContaining({ tables: ['public.orders', 'public.appointments'] }),
    );
  });

  it('starts with the tables and conditions that were given', async () => {
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stack,
      ListExecutions: { body: JSON.stringify({ executions: [] }) },
      StartExecution: { body: JSON.stringify({ executionArn: 'arn:of:it', startDate: 1 }) },
    };
    const inputs = async (...args: string[]) => {
      const { code, stderr } = await rollout(['start', '--yes', ...args]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      return JSON.parse(String((cloud.sent.at(-1) as { input: string }).input));
    };
    expect(
      await inputs(
        ...['--table', 'public.users', '--table', 'public.orders'],
        ...['--priority', "public.users=status = 'a=b'", '--priority', 'public.orders=is_open'],
      ),
    ).toEqual({
      tables: ['public.users', 'public.orders'],
      priority: { 'public.users': "status = 'a=b'", 'public.orders': 'is_open' },
    });
    // A condition, though it has a dot and an equals sign.
    for (const condition of ["status='open'", 'users.status = 1', '(users.status=1)', 'users.a>=5'])
      expect(await inputs('--priority', condition)).toEqual({ priority: condition });
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
    await vi.waitUntil(() => cloud.asked.includes('DescribeExecution'), { timeout: 120_000 });
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
    [
      ['start', '--priority', 'public.users='],
      /Expected a condition after the name, like public.users=is_vip/,
    ],
    [
      ['start', '--priority', 'a', '--priority', 'b'],
      /Expected one condition, or one for each of several tables/,
    ],
    [['start', '--priority', 'a', '--priority', 'public.users=b'], /Expected one condition, or one for each/],
    [['rollback', '--option', 'keep', '--table', 'public.users'], /^Found --table with --option keep/],
  ])('%j is refused before AWS is asked', async (args, message) => {
    expect(await rollout(args)).toMatchObject(refused(message));
    expect(cloud.asked).toEqual([]);
  });
});
