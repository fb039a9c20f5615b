/** What AWS does to the handlers: slow, throttled, empty, changed, gone; and clocks. */
import { expect, vi } from 'vitest';
import { AwsError } from '../../rehearsal/aws/aws-world.ts';
import { expectCompleted, expectStopped, type Fault, isBatch, listed, once } from './fault.ts';
import type { Hooks, Scene } from './scene.ts';
import { writers } from './scene.ts';

/** The service answers like this from the first batch of phase 3 until the repair, or `restore`. */
function disturbed(
  scene: Scene,
  disturb: (operation: string) => Promise<void> | void,
): Hooks & { restore(): void } {
  const { world } = scene.world.aws;
  const restore = () => {
    world.disturb = undefined;
  };
  scene.repair(restore);
  return {
    restore,
    before: once(isBatch(3), () => {
      world.disturb = disturb;
    }),
  };
}

const metricsAndAlarms = ['PutMetricData', 'GetMetricData', 'DescribeAlarms'];
const unavailable = () => new AwsError('InternalServiceFault', 'Service is unavailable');

/** The secret's value from phase 3 on. */
function keyBecomes(name: string, done: string, value: unknown): Fault {
  return {
    name,
    done,
    holds: 'Refused before the first write under it; with the right version restored the rollout resumes.',
    ...(name.includes('empty') ? { bounded: true as const } : {}),
    async run(scene) {
      let before = 0;
      const encrypted = () =>
        scene.count('select count(*) from public.appointments where pii_iv is not null');
      const ending = await scene.rollout({
        before: once(isBatch(3), async () => {
          before = await encrypted();
          scene.world.setKey(value);
        }),
      });
      scene.repair(() => scene.world.setKey({ number: 1, key: '0f'.repeat(32) }));
      expectStopped(ending, /Encryption key/);
      // Another writer's call under way goes on with the key that it began with; the end finds every row under that one.
      if (writers === 1) expect(await encrypted()).toBe(before);
      return `stopped by “Encryption key”, nothing written; ${before} rows as before`;
    },
  };
}

/** Turns the clock of the handlers. */
function turnedClock(hours: number): Fault {
  return {
    name: `Clock of the handlers jumps ${hours > 0 ? 'ahead' : 'back'}`,
    done: `From phase 3 on the clock of the handlers is ${Math.abs(hours)} hours ${hours > 0 ? 'ahead' : 'behind'}.`,
    holds: 'Windows are those of the database: the rollout goes on.',
    async run(scene) {
      scene.repair(() => vi.useRealTimers());
      const ending = await scene.rollout({
        before: once(isBatch(3), () => {
          vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + hours * 3_600_000 });
        }),
      });
      expectCompleted(ending);
      return 'completed';
    },
  };
}

export const surroundings: readonly Fault[] = [
  {
    name: 'Secrets Manager slow',
    done: 'In phase 3 every secret takes a second to read.',
    holds: 'The rollout takes longer.',
    async run(scene) {
      const { restore, ...hooks } = disturbed(scene, async (operation) => {
        if (operation === 'GetSecretValue') await new Promise((done) => setTimeout(done, 1_000));
      });
      const ending = await scene.rollout({
        ...hooks,
        after: ({ name, phase }) => name === 'Gate' && phase === 3 && restore(),
      });
      expectCompleted(ending);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Secrets Manager throttled',
    done: 'From phase 3 on the next 8 reads of a secret are throttled, more than the SDK tries again by itself.',
    holds: 'The call is retried as a TransientError.',
    async run(scene) {
      let left = 8;
      const ending = await scene.rollout(
        disturbed(scene, (operation) => {
          if (operation === 'GetSecretValue' && left-- > 0)
            throw new AwsError('ThrottlingException', 'Rate exceeded');
        }),
      );
      expectCompleted(ending);
      expect(scene.failures.get('TransientError')).toBeGreaterThan(0);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  keyBecomes('Key secret empty', 'From phase 3 on the key secret is an empty string.', ''),
  keyBecomes(
    'Key rotated in the middle of the run',
    'From phase 3 on the secret holds a new key, number 2.',
    {
      number: 2,
      key: 'ab'.repeat(32),
    },
  ),
  keyBecomes('Another key under the same number', 'From phase 3 on the secret holds other bytes as key 1.', {
    number: 1,
    key: 'cd'.repeat(32),
  }),
  keyBecomes('Key cut short', 'From phase 3 on the secret holds 31 bytes.', {
    number: 1,
    key: '0f'.repeat(31),
  }),
  {
    name: 'Secrets Manager down',
    done: 'From phase 3 on no secret can be read, neither the key nor the database’s password, until after the execution.',
    holds: 'The rollout ends and pages, since it cannot even roll back; nothing is half done.',
    async run(scene) {
      const ending = await scene.rollout(
        disturbed(scene, (operation) => {
          if (operation === 'GetSecretValue')
            throw new AwsError('InternalServiceError', 'Service is unavailable');
        }),
      );
      expect(ending).toMatchObject({ status: 'FAILED', error: 'RollbackFailed' });
      return `RollbackFailed, with the statement to run by hand; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'CloudWatch down',
    done: 'From phase 3 on metrics can be neither read nor published, and alarms not read.',
    holds: 'What cannot be measured is not health: the rollout stops safely.',
    async run(scene) {
      const ending = await scene.rollout(
        disturbed(scene, (operation) => {
          if (metricsAndAlarms.includes(operation)) throw unavailable();
        }),
      );
      expectStopped(ending, /./);
      return `RolloutStopped: ${ending.status === 'FAILED' ? (/(Database CPU|[A-Z]\w+(?:Error|Fault))/.exec(ending.cause)?.[0] ?? '') : ''}`;
    },
  },
  {
    name: 'Metrics cannot be published',
    done: 'The first 5 requests to publish after the beginning of phase 3 are throttled.',
    holds: 'The batch that has committed is not done twice, and not lost; the rollout goes on.',
    async run(scene) {
      let left = 5;
      const ending = await scene.rollout(
        disturbed(scene, (operation) => {
          if (operation === 'PutMetricData' && left-- > 0)
            throw new AwsError('ThrottlingException', 'Rate exceeded');
        }),
      );
      expectCompleted(ending);
      expect(await scene.count('select sum(rows_encrypted) from encryption_rollout.batches')).toBe(380);
      return `completed; 380 rows counted once; ${listed(scene.failures)}`;
    },
  },
  turnedClock(30),
  turnedClock(-30),
  {
    name: 'Clock of the database jumps back',
    done: 'Before phase 3 the clock of the server is set back a day: what is recorded lies a day ahead of what will be.',
    holds: 'Nothing that is not complete is called complete.',
    async run(scene) {
      const ending = await scene.rollout({
        before: once(isBatch(3), async () => {
          await scene.app.client.query(`
            update encryption_rollout.runs set started_at = started_at + interval '1 day';
            update encryption_rollout.phases set started_at = started_at + interval '1 day';
            update encryption_rollout.batches set started_at = started_at + interval '1 day';
            update encryption_rollout.events set happened_at = happened_at + interval '1 day'`);
        }),
      });
      expectCompleted(ending);
      return 'completed';
    },
  },
];
