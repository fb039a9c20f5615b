/** Judges the surroundings of the table: the database, its storage and replicas, the customers' alarms. Pure. */
import { type Criterion, criterion, number } from '../gates/judgement.ts';
import type { Plan } from '../plan/plan.ts';
import { duration, durationBeside } from '../telling/time.ts';

/** Names of the operator's alarms; the quiet ones are in no list. */
export interface CustomerAlarms {
  readonly inAlarm: readonly string[];
  /** INSUFFICIENT_DATA: many alarms are, while nobody uses what they watch. */
  readonly withoutData: readonly string[];
  readonly notFound: readonly string[];
}

/** The state of the world around the table. `null` = could not be measured. */
export interface Vitals {
  /** The latest one-minute averages of the database's CPU in percent, newest first. */
  readonly cpuPercents: readonly number[] | null;
  readonly customerAlarms: CustomerAlarms | null;
  /** Longest wait for a lock on the table at this moment, in milliseconds; 0 = nobody waits. */
  readonly longestLockWaitMilliseconds: number;
  readonly connections: { readonly used: number; readonly limit: number };
  /** Of an instance; undefined = not asked, because an Aurora cluster's storage grows by itself. */
  readonly freeStorageBytes: number | null | undefined;
  /** The slowest replica's; undefined = not asked, because there is none. */
  readonly replicaLagSeconds: number | null | undefined;
  /** WAL that the slowest replication slot holds back; 0 = none does. */
  readonly slotLagBytes: number;
  /** Age of the oldest transaction that is not the rollout's own, of those that its role may see. */
  readonly oldestTransactionMinutes: number;
  /** VACUUM, ANALYZE or CREATE INDEX CONCURRENTLY is at work on the table. */
  readonly maintenance: boolean;
  /** Versions of rows that no vacuum has cleared yet, in percent of all. Every row that is encrypted leaves one. */
  readonly deadRowsPercent: number;
}

export const gibibytes = (bytes: number) => `${number.format(bytes / 2 ** 30)} GiB`;

/** The abort conditions that say how the world is doing: CPU, storage, replicas, locks, connection pool, customers. */
export function vitalsCriteria(plan: Plan, vitals: Vitals): Criterion[] {
  const { abort } = plan;
  const { used, limit } = vitals.connections;
  const wait = durationBeside(vitals.longestLockWaitMilliseconds, abort.lockWaitMilliseconds, 'ms');
  return [
    cpuCriterion(plan, vitals.cpuPercents ?? []),
    ...storageCriteria(plan, vitals),
    criterion(
      'Database locks',
      `no wait over ${wait.limit}`,
      wait.measured,
      vitals.longestLockWaitMilliseconds <= abort.lockWaitMilliseconds,
    ),
    criterion(
      'Database connections',
      `not above ${abort.connectionPercent} % of the limit`,
      `${number.format(used)} of ${number.format(limit)}`,
      used * 100 <= limit * abort.connectionPercent,
    ),
    customerCriterion(vitals.customerAlarms),
  ];
}

/** One reading that is not above the limit is enough to pass; to fail it takes all that are wanted. */
function cpuCriterion({ abort }: Plan, cpuPercents: readonly number[]): Criterion {
  const cpu = cpuPercents.slice(0, abort.cpuReadings);
  const missing = abort.cpuReadings - cpu.length;
  const told = cpu.map((value) => `${number.format(value)} %`).join(', ');
  return criterion(
    'Database CPU',
    `not above ${abort.cpuPercent} % in ${abort.cpuReadings} consecutive readings`,
    cpu.length === 0 ? 'no reading' : missing === 0 ? told : `${told}, and ${missing} without a reading`,
    cpu.some((value) => value <= abort.cpuPercent) || (missing === 0 ? false : null),
  );
}

/**
 * Whether customers notice. An alarm without data says nothing against anybody and is named; one that does not exist is not
 * one that is quiet. null = could not be read.
 */
export function customerCriterion(alarms: CustomerAlarms | null): Criterion {
  return criterion(
    'Customer-facing alarms',
    'none in ALARM',
    alarms === null ? 'could not be read' : alarmsInWords(alarms),
    alarms === null ? null : alarms.inAlarm.length > 0 ? false : alarms.notFound.length > 0 ? null : true,
  );
}

/** E.g. `none; without data: night-orders`. */
export function alarmsInWords({ inAlarm, withoutData, notFound }: CustomerAlarms): string {
  return [
    inAlarm.join(', ') || 'none',
    ...(notFound.length === 0 ? [] : [`no such alarm: ${notFound.join(', ')}`]),
    ...(withoutData.length === 0 ? [] : [`without data: ${withoutData.join(', ')}`]),
  ].join('; ');
}

/** What fills the disk, and who lags behind. A lag alone stops nothing, but what nobody knows is not health. */
function storageCriteria({ abort }: Plan, vitals: Vitals): Criterion[] {
  const { freeStorageBytes, replicaLagSeconds, slotLagBytes } = vitals;
  const criteria: Criterion[] = [];
  if (freeStorageBytes !== undefined)
    criteria.push(
      criterion(
        'Free storage',
        `at least ${gibibytes(abort.minFreeStorageBytes)}`,
        freeStorageBytes === null ? 'no reading' : gibibytes(freeStorageBytes),
        freeStorageBytes === null ? null : freeStorageBytes >= abort.minFreeStorageBytes,
      ),
    );
  if (replicaLagSeconds !== undefined)
    criteria.push(
      criterion(
        'Replica lag',
        'known',
        replicaLagSeconds === null ? 'no reading' : duration(replicaLagSeconds),
        replicaLagSeconds === null ? null : true,
      ),
    );
  criteria.push(
    criterion(
      'Replication slots',
      `not above ${gibibytes(abort.slotLagBytes)} of WAL held back`,
      gibibytes(slotLagBytes),
      slotLagBytes <= abort.slotLagBytes,
    ),
  );
  return criteria;
}
