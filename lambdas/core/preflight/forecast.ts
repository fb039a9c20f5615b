/** What a rollout will write, from sizes and a sample of the table, and whether there is room for it. Pure. */
import type { Criterion } from '../gates/judgement.ts';
import {
  ASSUMED_MILLISECONDS_PER_ROW,
  batchesLeft,
  hoursLeft,
  noPace,
  type TableAhead,
  type Way,
} from '../operating/time-left.ts';
import { type Plan, phaseOf } from '../plan/plan.ts';
import type { OffPeak } from '../pressure/off-peak.ts';
import { wantedPace } from '../pressure/pace.ts';
import { gibibytes } from '../pressure/vitals-criteria.ts';
import { charges } from './cost.ts';

/** A sample of `fraction` of the table's pages, and the sizes that PostgreSQL knows. Bytes are averages per row to encrypt. */
export interface TableSample {
  readonly fraction: number;
  readonly rows: number;
  readonly withPii: number;
  readonly todo: number;
  readonly rowBytes: number;
  /** Ciphertexts and IV. */
  readonly addedBytes: number;
  readonly tableBytes: number;
  readonly pageBytes: number;
  readonly indexBytes: readonly number[];
  readonly checkpointSeconds: number;
  readonly maxWalBytes: number;
  readonly fullPageWrites: boolean;
}

export interface Slot {
  readonly name: string;
  readonly active: boolean;
  readonly lagBytes: number;
}

/** What one table adds to it. */
interface TableForecast {
  readonly rowsToEncrypt: number;
  readonly batches: number;
  /** Growth of the table and its indexes, if no vacuum runs meanwhile. */
  readonly tableBytes: number;
  readonly walBytes: number;
  /** Of the engine: a record of each batch, and for a year of who used the key. */
  readonly recordBytes: number;
}

/** From the start to the end, with all waits, and what AWS charges for it. */
interface Duration {
  readonly hours: number;
  readonly dollars: number;
}

/** Of all tables together, and of each. */
export type Forecast = TableForecast & {
  /** At the plan's pace, and as fast as the database allows. */
  readonly paces: { readonly plan: Duration; readonly adaptive: Duration };
  readonly tables: readonly (TableForecast & { readonly name: string })[];
};

/** An update's record, the lock's before it, and their block references. */
const RECORD_BYTES = 150;
/** An index entry's record, without the entry. */
const INDEX_RECORD_BYTES = 64;
/** A line pointer, and on average half of the eight bytes that a row is aligned to. */
const POINTER_BYTES = 8;
/** A batch's record and its index, and that it used the key. */
const BATCH_RECORD_BYTES = 500;
/** Of the key's use, of which the trigger writes one an hour; those of a day are summed up when they are 90 days old. */
const KEY_USE_BYTES = 130;
const KEY_USES_A_YEAR = 90 * 24 + 275;

/**
 * Every row to encrypt is written anew (its old version stays until a vacuum), with an entry in every index:
 *
 *     table = rows × (row + ciphertexts + IV + pointer) + Σ index × rows / all rows
 *     WAL   = rows × (new row + 150 + Σ (entry + 64)) + full pages
 *
 * A page is logged in full when it is first changed after a checkpoint. The table is walked as it is stored, so each of its
 * pages once, the old and the new; entries of an index fall anywhere, so up to all of its pages in every checkpoint.
 */
export function forecast(
  plan: Plan,
  samples: ReadonlyMap<string, TableSample>,
  offPeak: OffPeak | null,
  now: Date,
): Forecast {
  const tables = [...samples].map(([name, sample]) => ({ name, ...forecastTable(plan, sample) }));
  const sum = (value: (table: TableForecast) => number) =>
    tables.reduce((total, table) => total + value(table), 0);
  const rows = sum(({ rowsToEncrypt }) => rowsToEncrypt);
  const batches = sum(({ batches }) => batches);
  const way = wayOf([...samples.values()].map(aheadOf));
  const audited = way.tables.reduce((total, { rowsWithPii }) => total + rowsWithPii, 0);
  const audits = (audited * ASSUMED_MILLISECONDS_PER_ROW) / 1_000 / plan.pace.callSeconds;
  const workSeconds = ((rows + audited) * ASSUMED_MILLISECONDS_PER_ROW) / 1_000;
  const { share, callSeconds } = plan.pace;
  const adaptive = {
    ...noPace,
    tuned: { ...noPace.tuned, pace: wantedPace(plan, { mode: 'adaptive' }) },
  };
  // A call sleeps between its batches, and that is charged, too.
  const callsSeconds = (rows * ASSUMED_MILLISECONDS_PER_ROW) / share / 1_000;
  return {
    rowsToEncrypt: rows,
    batches,
    paces: {
      plan: {
        hours: hoursLeft(plan, offPeak, now, way, noPace),
        dollars: charges(batches + audits, workSeconds),
      },
      adaptive: {
        hours: hoursLeft(plan, offPeak, now, way, adaptive),
        dollars: charges(callsSeconds / callSeconds + audits, workSeconds + (1 - share) * callsSeconds),
      },
    },
    tableBytes: sum(({ tableBytes }) => tableBytes),
    walBytes: sum(({ walBytes }) => walBytes),
    recordBytes: sum(({ recordBytes }) => recordBytes),
    tables,
  };
}

function wayOf(tables: readonly TableAhead[]): Way {
  return { from: 1, until: 5, tables, hoursSoaked: null, rowsAudited: 0 };
}

function aheadOf({ todo, withPii, fraction }: TableSample): TableAhead {
  const rows = Math.round(todo / fraction);
  const rowsWithPii = Math.max(rows, Math.round(withPii / fraction));
  return { from: 1, rowsWithPii, rowsEncryptedNow: rowsWithPii - rows };
}

function forecastTable(plan: Plan, sample: TableSample): TableForecast {
  const rows = Math.round(sample.todo / sample.fraction);
  const allRows = Math.max(1, sample.rows / sample.fraction);
  // Long values lie beside the table, and an update does not write them again.
  const rowBytes = Math.min(sample.rowBytes, sample.tableBytes / allRows);
  const newRow = rowBytes + sample.addedBytes;
  const share = Math.min(1, rows / allRows);
  const indexGrowth = sample.indexBytes.reduce((sum, bytes) => sum + bytes * share, 0);
  const tableBytes = rows * (newRow + POINTER_BYTES) + indexGrowth;

  const batches = batchesLeft(plan, wayOf([aheadOf(sample)]), noPace.tuned).reduce(
    (sum, each) => sum + each.batches,
    0,
  );
  const bulk = phaseOf(plan, 3);
  const workSeconds = batches * bulk.pauseSeconds + (rows * ASSUMED_MILLISECONDS_PER_ROW) / 1_000;

  const entries = sample.indexBytes.reduce((sum, bytes) => sum + INDEX_RECORD_BYTES + bytes / allRows, 0);
  const records = rows * (newRow + RECORD_BYTES + entries);
  const oldPages = Math.min(rows, sample.tableBytes / sample.pageBytes);
  const heapPages = oldPages + (rows * newRow) / sample.pageBytes;
  const checkpoints = Math.max(
    1,
    Math.ceil(workSeconds / sample.checkpointSeconds),
    Math.ceil(records / sample.maxWalBytes),
  );
  const indexPages = sample.indexBytes.reduce(
    (sum, bytes) => sum + Math.min(rows, (bytes / sample.pageBytes) * checkpoints),
    0,
  );
  const walBytes = records + (sample.fullPageWrites ? (heapPages + indexPages) * sample.pageBytes : 0);
  return {
    rowsToEncrypt: rows,
    batches,
    tableBytes: Math.round(tableBytes),
    walBytes: Math.round(walBytes),
    recordBytes: batches * BATCH_RECORD_BYTES + KEY_USES_A_YEAR * KEY_USE_BYTES,
  };
}

/**
 * Whether there is room. WAL is recycled unless a slot holds it back: a slot that nobody reads holds back all of it, one
 * that lags no more than the plan allows before batches stop.
 */
export function roomCriteria(
  { abort }: Plan,
  { tableBytes, walBytes }: Forecast,
  slots: readonly Slot[],
  freeStorageBytes: number | null | undefined,
): Criterion[] {
  const inactive = slots.filter(({ active }) => !active);
  const heldBack =
    inactive.length > 0 ? walBytes : slots.length > 0 ? Math.min(walBytes, abort.slotLagBytes) : 0;
  const needed = tableBytes + heldBack + abort.minFreeStorageBytes;
  const criteria: Criterion[] = [
    {
      name: 'Inactive replication slots',
      expected: `none that would hold back more than ${gibibytes(abort.slotLagBytes)} with the ${gibibytes(walBytes)} of WAL to come`,
      measured:
        inactive.map(({ name, lagBytes }) => `${name}, ${gibibytes(lagBytes)} behind`).join('; ') || 'none',
      passed: inactive.every(({ lagBytes }) => lagBytes + walBytes <= abort.slotLagBytes),
      ...(inactive.length === 0
        ? {}
        : { advice: "Have them read, or drop them: select pg_drop_replication_slot('<name>');" }),
    },
  ];
  if (freeStorageBytes !== undefined)
    criteria.push({
      name: 'Room for what will be written',
      expected: `at least ${gibibytes(needed)} free: ${gibibytes(tableBytes)} for the tables, ${gibibytes(heldBack)} of WAL held back, ${gibibytes(abort.minFreeStorageBytes)} to spare`,
      measured: freeStorageBytes === null ? 'no reading' : gibibytes(freeStorageBytes),
      passed: freeStorageBytes === null ? null : freeStorageBytes >= needed,
    });
  return criteria;
}
