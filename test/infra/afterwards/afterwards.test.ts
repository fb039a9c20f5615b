/** What the deployment does after a rollout, and whom it tells. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Template } from 'aws-cdk-lib/assertions';
import { beforeEach, describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../../infra/synthesis.ts';
import { toldBy } from '../../../lambdas/core/telling/chat.ts';
import { InvocationError } from '../../../rehearsal/machines/functions.ts';
import { StateMachines, silent } from '../../../rehearsal/machines/state-machines.ts';

const example = JSON.parse(readFileSync('config/example.json', 'utf8'));
const told = {
  ...example,
  updates: ['channel@example.com'],
  stakeholders: { security: ['security@example.com'] },
};
const rollout = synthesizeRollout(parseConfig(told, 'test'));
const template = Template.fromJSON(rollout.template as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): [string, T] => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.entries(found)[0] as [string, T];
};
const machineId = (name: string) =>
  only(
    template.findResources('AWS::StepFunctions::StateMachine', {
      Properties: { StateMachineName: `EncryptionRollout-${name}` },
    }),
  )[0];

let answers: Record<string, () => unknown>;
let notes: string[];
beforeEach(() => {
  answers = {};
  notes = [];
});
const machinesOf = ({ machines }: typeof rollout) =>
  new StateMachines({
    definitions: new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition])),
    invoke: async (name) => answers[name]?.(),
    listener: {
      ...silent,
      notified: (subject, message, topic) => notes.push(`${topic}: ${subject}: ${message}`),
    },
  });
const machines = machinesOf(rollout);
let count = 0;
const execute = (machine: MachineName, input: unknown = {}, on = machines) =>
  on.execute(machine, `execution-${count++}`, input);
const run = { id: '6f1c1f3e-7c0f-4a9e-9a43-0d3f0a5e0001', attempt: 1, target: 'public.appointments' };

describe('PostRolloutChecks', () => {
  const check = (verdict: string) => {
    answers.PostRolloutCheck = () => ({ verdict, subject: 'Daily check', message: verdict });
    return execute('PostRolloutChecks', { run, check: 'daily' });
  };

  test('reports to those who follow the rollout', async () => {
    expect(await check('GO')).toMatchObject({ status: 'SUCCEEDED' });
    expect(notes).toEqual(['Updates: Daily check: GO']);
  });

  test.each(['NO_GO', 'INCONCLUSIVE'])('%s pages first, then reports', async (verdict) => {
    expect(await check(verdict)).toMatchObject({ status: 'SUCCEEDED' });
    expect(notes).toEqual([`OnCall: Daily check: ${verdict}`, `Updates: Daily check: ${verdict}`]);
  });

  test('a chat, which follows both topics, can tell the page from the report that follows', () => {
    const { Page, Report } = rollout.machines.PostRolloutChecks.definition.States as Record<
      string,
      { Parameters?: { MessageAttributes?: unknown } }
    >;
    expect(Page?.Parameters?.MessageAttributes).toEqual({
      [toldBy]: { DataType: 'String', StringValue: 'Updates' },
    });
    expect(Report?.Parameters).not.toHaveProperty('MessageAttributes');
  });

  test('fails when the check cannot be made: that is what the alarm ChecksFailed watches', async () => {
    answers.PostRolloutCheck = () => {
      throw new InvocationError('KeyUnavailable', '{}');
    };
    expect(await execute('PostRolloutChecks', { run, check: 'daily' })).toMatchObject({
      status: 'FAILED',
      error: 'KeyUnavailable',
    });
    expect(notes).toEqual([]);
  });

  test('takes exactly what the schedules give it, and is started by nobody else', () => {
    const group = only(template.findResources('AWS::Scheduler::ScheduleGroup'))[1].Properties;
    expect(group.Name).toBe('EncryptionRollout-Checks');
    const roles = Object.values(template.findResources('AWS::IAM::Role')).filter(({ Properties }) =>
      JSON.stringify(Properties.Policies ?? []).includes('EncryptionRollout-PostRolloutChecks'),
    );
    expect(roles).toHaveLength(1);
    const { AssumeRolePolicyDocument, Policies } = roles[0]?.Properties ?? {};
    expect(AssumeRolePolicyDocument.Statement).toEqual([
      {
        Effect: 'Allow',
        Action: 'sts:AssumeRole',
        Principal: { Service: 'scheduler.amazonaws.com' },
        Condition: { StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } } },
      },
    ]);
    expect(Policies).toHaveLength(1);
    expect(Policies[0].PolicyDocument.Statement).toEqual([
      { Effect: 'Allow', Action: 'states:StartExecution', Resource: expect.anything() },
    ]);
    expect(JSON.stringify(Policies[0].PolicyDocument.Statement[0].Resource)).toMatch(
      /:stateMachine:EncryptionRollout-PostRolloutChecks"/,
    );
  });

  // StopRollout for an execution that ended before it got there.
  test.each(['ScheduleChecks', 'StopRollout'])(
    '%s may make schedules in their group, and pass on that one role to the scheduler alone',
    (name) => {
      const [, fn] = only(
        template.findResources('AWS::Lambda::Function', {
          Properties: { FunctionName: `EncryptionRollout-${name}` },
        }),
      );
      const role = fn.Properties.Role['Fn::GetAtt'][0];
      const statements = Object.values(template.findResources('AWS::IAM::Policy'))
        .filter(({ Properties }) => Properties.Roles.some((each: { Ref: string }) => each.Ref === role))
        .flatMap(({ Properties }) => Properties.PolicyDocument.Statement);
      const allowed = (action: string) =>
        statements.filter(({ Action }: { Action: string | string[] }) => [Action].flat().includes(action));
      const [schedules] = allowed('scheduler:CreateSchedule');
      expect(schedules.Action).toEqual(['scheduler:CreateSchedule', 'scheduler:DeleteSchedule']);
      expect(JSON.stringify(schedules.Resource)).toContain(':schedule/EncryptionRollout-Checks/*');
      expect(allowed('iam:PassRole')).toEqual([
        {
          Effect: 'Allow',
          Action: 'iam:PassRole',
          Resource: fn.Properties.Environment.Variables.CHECKS_ROLE_ARN,
          Condition: { StringEquals: { 'iam:PassedToService': 'scheduler.amazonaws.com' } },
        },
      ]);
      const everybody = Object.values(template.findResources('AWS::IAM::Policy')).flatMap(
        ({ Properties }) => Properties.PolicyDocument.Statement,
      );
      expect(JSON.stringify(everybody).match(/iam:PassRole/g)).toHaveLength(2);
    },
  );
});

describe('StatusUpdates', () => {
  const tell = async (due: boolean, security: boolean) => {
    answers.WriteUpdate = () => ({ due, security, subject: 'Phase 1', message: '5 %', offers: '{}' });
    expect(await execute('StatusUpdates')).toMatchObject({ status: 'SUCCEEDED' });
    return notes;
  };

  test.each([
    [false, false, []],
    [true, false, ['Updates: Phase 1: 5 %']],
    [true, true, ['Updates: Phase 1: 5 %', 'Security: Phase 1: 5 %']],
    [false, true, ['Security: Phase 1: 5 %']],
  ])('due: %s, for the security team: %s', async (due, security, expected) => {
    expect(await tell(due, security)).toEqual(expected);
  });

  test('are asked for every hour', () => {
    template.hasResourceProperties('AWS::Scheduler::Schedule', {
      GroupName: 'EncryptionRollout-Checks',
      Name: 'StatusUpdates',
      ScheduleExpression: 'rate(1 hour)',
      Target: { Arn: { Ref: machineId('StatusUpdates') } },
    });
  });

  test('go to the followers alone where the security team has no address', async () => {
    const other = machinesOf(synthesizeRollout(parseConfig(example, 'test')));
    answers.WriteUpdate = () => ({
      due: true,
      security: true,
      subject: 'Phase 1',
      message: '5 %',
      offers: '{}',
    });
    expect(await execute('StatusUpdates', {}, other)).toMatchObject({ status: 'SUCCEEDED' });
    expect(notes).toEqual(['Updates: Phase 1: 5 %']);
  });
});

describe('the end of a rollout', () => {
  const complete = () =>
    Object.assign(answers, {
      PrepareDatabase: () => ({ ...run, id: randomUUID(), resumeAt: 5, untilPhase: 5 }),
      Preflight: () => ({ gate: 'Preflight', verdict: 'GO', reason: '' }),
      TakeBackup: () => ({ outcome: 'READY' }),
      CountSubscribers: () => ({ subscribers: 1 }),
      CheckVitals: () => ({ outcome: 'OK', slice: 1, waitSeconds: 0, reason: '', gate: '' }),
      Gate: () => ({ gate: 'Gate', verdict: 'GO', reason: '' }),
      ListWork: () => ({ outcome: 'DONE', items: [], round: 1 }),
      AuditRows: () => ({ outcome: 'DONE', batch: 1 }),
      CompleteRollout: () => ({ summary: 'complete' }),
    });

  test('schedules the checks, then tells', async () => {
    const calls: string[] = [];
    complete();
    answers.ScheduleChecks = () => {
      calls.push(...notes);
      return { schedules: [] };
    };
    expect(await execute('EncryptionRollout')).toMatchObject({ status: 'SUCCEEDED' });
    expect(calls).toEqual([]);
    expect(notes).toEqual(['Notes: EncryptionRollout: completed: public.appointments: complete']);
  });

  test('is complete although the checks could not be scheduled, and somebody hears of it', async () => {
    complete();
    answers.ScheduleChecks = () => {
      throw new InvocationError('AccessDeniedException', '{}');
    };
    expect(await execute('EncryptionRollout')).toMatchObject({ status: 'SUCCEEDED' });
    expect(notes).toEqual([
      expect.stringMatching(
        /^Tomorrow: EncryptionRollout: completed, checks not scheduled: .*start another execution/,
      ),
      'Notes: EncryptionRollout: completed: public.appointments: complete',
    ]);
  });
});

test('those who follow the rollout have a topic, whose name the stack gives out', () => {
  const [id] = only(
    template.findResources('AWS::SNS::Topic', { Properties: { TopicName: 'EncryptionRollout-Updates' } }),
  );
  template.hasOutput('UpdatesTopicArn', { Value: { Ref: id } });
  template.hasResourceProperties('AWS::SNS::Subscription', {
    Protocol: 'email',
    Endpoint: 'channel@example.com',
    TopicArn: { Ref: id },
  });
});
