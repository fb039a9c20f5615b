/** Databases as AWS has them besides an instance, and what may stand before one. */

import { createServer } from 'node:net';
import { CloudWatchClient, PutMetricDataCommand } from '@aws-sdk/client-cloudwatch';
import { expect, test } from 'vitest';
import type { Criterion } from '../../lambdas/core/gates/judgement.ts';
import { deployBeside, query, rolloutOf, setLogin } from './world.ts';

const dryRun = (stack: string) =>
  rolloutOf(stack, 'start', '--dry-run', '--input', 'test/support/attested-input.json', '--json');

/** What a dry run of the stack says about its database, by the names of the criteria. */
async function measuredBy(stack: string): Promise<Record<string, Pick<Criterion, 'measured' | 'passed'>>> {
  const { stdout, stderr } = await dryRun(stack);
  const { output } = JSON.parse(stdout || '{}') as { output?: { criteria: Criterion[] } };
  expect(output, stdout + stderr).toBeTruthy();
  return Object.fromEntries(
    (output?.criteria ?? []).map(({ name, measured, passed }) => [name, { measured, passed }]),
  );
}

async function put(dimension: string, value: string, readings: Readonly<Record<string, number>>) {
  await new CloudWatchClient().send(
    new PutMetricDataCommand({
      Namespace: 'AWS/RDS',
      MetricData: Object.entries(readings).flatMap(([MetricName, Value]) =>
        [0, 1, 2, 3].map((minutes) => ({
          MetricName,
          Dimensions: [
            { Name: dimension, Value: value },
            ...(dimension === 'DBClusterIdentifier' ? [{ Name: 'Role', Value: 'WRITER' }] : []),
          ],
          Timestamp: new Date(Date.now() - minutes * 60_000),
          Value,
        })),
      ),
    }),
  );
}

export function databases(): void {
  test('a Multi-AZ DB cluster is judged by its three instances', async () => {
    const instances = ['main-1', 'main-2', 'main-3'];
    await deployBeside('MultiAz', { database: { clusterIdentifier: 'main', instances } });
    for (const [index, instance] of instances.entries())
      await put('DBInstanceIdentifier', instance, {
        CPUUtilization: 10 * (index + 1),
        FreeStorageSpace: (9 - index) * 2 ** 30,
        ReplicaLag: index,
      });
    const measured = await measuredBy('MultiAz');
    expect(measured['Free storage']).toEqual({ measured: '7 GiB', passed: true });
    expect(measured['Replica lag']).toMatchObject({ passed: true });
    expect(measured['Database CPU']).toMatchObject({ passed: true });
  });

  test('an Aurora cluster is judged as one, and asked for its readers', async () => {
    await deployBeside('Aurora', { database: { clusterIdentifier: 'aurora' } });
    await put('DBClusterIdentifier', 'aurora', { CPUUtilization: 20 });
    // Who names no instances, and is not Aurora, is not known.
    expect((await measuredBy('Aurora'))['Free storage']).toMatchObject({ passed: null });
    await query('set allow_system_table_mods = on');
    await query(`create function pg_catalog.aurora_replica_status(out session_id text) returns setof text
      language sql as $$ select 'MASTER_SESSION_ID' $$`);
    try {
      const measured = await measuredBy('Aurora');
      expect(measured['Database CPU']).toMatchObject({ passed: true });
      expect(measured['Free storage']?.passed).not.toBe(null);
    } finally {
      await query('drop function pg_catalog.aurora_replica_status()');
      await query('reset allow_system_table_mods');
    }
  });

  test('a pooler in the way is refused by the dry run, before any setting', async () => {
    const told: Buffer[] = [];
    // PgBouncer's answer to start-up options.
    const pooler = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (data) => {
        told.push(data);
        const fields = Buffer.from('SFATAL\0C08P01\0Munsupported startup parameter: options\0\0');
        const length = Buffer.alloc(4);
        length.writeInt32BE(fields.length + 4);
        socket.end(Buffer.concat([Buffer.from('E'), length, fields]));
      });
    });
    await new Promise<void>((resolve) => pooler.listen(0, '127.0.0.1', resolve));
    const { port } = pooler.address() as { port: number };
    try {
      await setLogin({ host: '127.0.0.1', port });
      const { code, stdout, stderr } = await dryRun('Aurora');
      expect({ code, text: stdout + stderr }).toEqual({
        code: 1,
        text: expect.stringContaining(
          `Found a connection pooler at 127.0.0.1:${port}, expected PostgreSQL itself`,
        ),
      });
      expect(Buffer.concat(told).toString('latin1')).not.toMatch(/\bset /i);
    } finally {
      await setLogin({});
      pooler.close();
    }
  });
}
