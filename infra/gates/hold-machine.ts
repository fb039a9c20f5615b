import { Duration } from 'aws-cdk-lib';
import {
  type IChainable,
  JsonPath,
  type StateMachine,
  Succeed,
  type TaskStateBase,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { Plan } from '../../lambdas/core/plan/plan.ts';
import { offers } from '../../lambdas/core/telling/chat.ts';
import { grandchildName } from '../machines/execution-names.ts';
import {
  awaitAnswer,
  execute,
  heardOrNot,
  invoke,
  type MachineProps,
  machine,
  notify,
  set,
} from '../machines/tasks.ts';

/**
 * Asks a person about a judgement that is INCONCLUSIVE, and waits for the answer. Nothing is decided here: what asked is
 * asked again, and finds the answer in the database.
 * Input `{run, gate}`; output `{hold}`.
 */
export class HoldMachine extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, topics, plan }: MachineProps & { readonly plan: Plan },
  ) {
    super(scope, id);
    const run = JsonPath.objectAt('$.run');
    const hold = JsonPath.stringAt('$.asked.hold');
    const askPerson = invoke(this, 'AskPerson', {
      functions,
      payload: {
        run,
        gate: JsonPath.stringAt('$.gate'),
        execution: JsonPath.executionName,
      },
      resultPath: '$.asked',
    });
    const page = notify(
      this,
      'Notify',
      topics.page,
      JsonPath.stringAt('$.asked.subject'),
      JsonPath.stringAt('$.asked.message'),
      { [offers]: { value: JsonPath.stringAt('$.asked.offers') } },
    );
    const awaitDecision = awaitAnswer(this, 'AwaitDecision', {
      functions,
      payload: { run, hold, token: JsonPath.taskToken },
      // A fraction of a minute is for tests; a second is the least that there is.
      timeout: Duration.seconds(Math.max(1, Math.round(plan.holdMinutes * 60))),
    });
    const expireHold = invoke(this, 'ExpireHold', {
      functions,
      payload: { run, hold },
      resultPath: JsonPath.DISCARD,
    });
    const over = new Succeed(this, 'Over', { outputPath: '$.asked' });

    askPerson.next(page);
    // Whoever looks at the status sees the question all the same.
    heardOrNot(page, awaitDecision);
    awaitDecision.addCatch(expireHold, { errors: ['States.Timeout'], resultPath: JsonPath.DISCARD });
    awaitDecision.next(over);
    expireHold.next(over);

    this.machine = machine(this, names, 'Hold', 'Asks a person, and waits for the answer', askPerson);
  }
}

interface Question {
  /** Name of the state; the one before it counts the holds, for their names. */
  readonly id: string;
  readonly hold: StateMachine;
  readonly plan: Plan;
  /** JSON path of the judgement's name. */
  readonly gate: string;
  /** The state that asked. */
  readonly again: IChainable;
  readonly guard?: (task: TaskStateBase) => void;
}

/** What a machine begins with that asks people: the questions are counted, for the names of their executions. */
export const noQuestions = { count: 0 };

/**
 * The states that put a judgement to a person and then go back to the state that made it; returns the first. Uses `$.run`
 * and `$.holds`.
 */
export function askAgain(scope: Construct, { id, hold, plan, again, gate, guard }: Question): IChainable {
  const count = set(scope, `${id}Count`, '$.holds', {
    count: JsonPath.mathAdd(JsonPath.numberAt('$.holds.count'), 1),
  });
  const task = execute(scope, id, {
    machine: hold,
    name: grandchildName('hold-{}', JsonPath.stringAt('$.holds.count')),
    input: { run: JsonPath.objectAt('$.run'), gate },
    timeout: holdTimeout(plan),
  });
  guard?.(task);
  count.next(task);
  task.next(again);
  return count;
}

/** Longer than any hold: the answer's time, and what is done before and after it with every retry. */
export function holdTimeout(plan: Plan): Duration {
  return Duration.seconds(Math.ceil(plan.holdMinutes * 60) + 3_600);
}
