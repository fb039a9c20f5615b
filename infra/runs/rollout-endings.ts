/** How an execution of EncryptionRollout ends: complete, after the phase that its input names, or stopped. */
import { Duration } from 'aws-cdk-lib';
import { Fail, type IChainable, type IStateMachine, JsonPath, Succeed } from 'aws-cdk-lib/aws-stepfunctions';
import type { Construct } from 'constructs';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import { childName } from '../machines/execution-names.ts';
import { execute, heardOrNot, invoke, type MachineProps, notify, onError } from '../machines/tasks.ts';
import { unfinished } from '../stopping/rollback-machine.ts';

type EndingProps = Pick<MachineProps, 'names' | 'functions' | 'topics'>;

const run = JsonPath.objectAt('$.run');

/** Completes the run, tells people, and schedules the checks of the days after. */
export function completed(scope: Construct, props: EndingProps, rollback: IChainable): IChainable {
  const { functions, names, topics } = props;
  const done = new Succeed(scope, 'RolloutCompleted');
  const completeRollout = invoke(scope, 'CompleteRollout', {
    functions,
    payload: { run },
    resultPath: '$.step',
  });
  const notifyCompleted = notify(
    scope,
    'NotifyCompleted',
    topics.note,
    names.subject('completed'),
    JsonPath.stringAt('$.step.summary'),
  );
  // Complete it is, whoever heard of it.
  heardOrNot(notifyCompleted, done);
  const scheduleChecks = invoke(scope, 'ScheduleChecks', {
    functions,
    payload: { run },
    resultPath: '$.checks',
  });
  // Nor is it rolled back because nobody would look after it; but somebody must hear that.
  const notifyUnscheduled = notify(
    scope,
    'NotifyChecksNotScheduled',
    topics.tomorrow,
    names.subject('completed, checks not scheduled'),
    'The rollout is complete, but the checks of the next 30 days could not be scheduled. See the log of ScheduleChecks, then start another execution: it verifies every row, and schedules them.',
  );
  heardOrNot(notifyUnscheduled, notifyCompleted);
  onError(scheduleChecks, '$.unscheduled', notifyUnscheduled).next(notifyCompleted);
  return onError(completeRollout, '$.step.reason', rollback).next(scheduleChecks);
}

/** Ends an execution as its input asked. Nothing is rolled back, and the next execution goes on. */
export function phaseFinished(scope: Construct, props: EndingProps, rollback: IChainable): IChainable {
  const { functions, names, topics } = props;
  const finished = new Succeed(scope, 'PhaseFinished', { outputPath: '$.step' });
  const endPhase = invoke(scope, 'EndPhase', {
    functions,
    payload: { run, phase: JsonPath.numberAt('$.run.untilPhase') },
    resultPath: '$.step',
  });
  const page = notify(
    scope,
    'NotifyPhaseFinished',
    topics.note,
    names.subject('phase finished'),
    JsonPath.stringAt('$.step.summary'),
  );
  heardOrNot(page, finished);
  return onError(endPhase, '$.step.reason', rollback).next(page);
}

/** Rolls back and fails with a cause that the person on call understands. The rollback has paged, or its alarm does. */
export function stopped(
  scope: Construct,
  { names, targets }: EndingProps & { readonly targets: readonly Target[] },
  rollback: IStateMachine,
): IChainable {
  const failed = new Fail(scope, 'RollbackFailed', {
    error: 'RollbackFailed',
    cause: `The rollout was stopped, but its rollback did not finish. ${unfinished(names, targets)}`,
  });
  const task = execute(scope, 'Rollback', {
    machine: rollback,
    name: childName('rollback'),
    input: { run, reason: JsonPath.objectAt('$.step.reason') },
    resultSelector: { summary: JsonPath.stringAt('$.Output.summary') },
    resultPath: '$.step',
    // Its steps take seconds; with every retry of every step it is still over by then.
    timeout: Duration.hours(3),
  });
  // Another road was first: an alarm, or a person who stopped the execution. Its rollback runs, or has run.
  task.addCatch(
    new Fail(scope, 'RolledBackFromOutside', {
      error: 'RolloutStopped',
      cause:
        'The rollback was started from outside this execution: see the execution of Rollback that begins with the id of this run. Its output has the report.',
    }),
    { errors: ['StepFunctions.ExecutionAlreadyExistsException'] },
  );
  return onError(task, '$.error', failed).next(
    new Fail(scope, 'RolloutStopped', { error: 'RolloutStopped', causePath: '$.step.summary' }),
  );
}
