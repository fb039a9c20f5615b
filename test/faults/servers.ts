/** What happens to the server and to the way to it. */
import { execFile } from 'node:child_process';
import { chown, mkdir, open, rm, stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import { expect } from 'vitest';
import {
  expectCompleted,
  type Fault,
  gateInBatches,
  insteadOnce,
  isBatch,
  listed,
  once,
  until,
} from './fault.ts';
import { wire } from './proxy.ts';
import type { Call, Scene } from './scene.ts';
import type { OwnServer } from './server.ts';

const recorded = (scene: Scene) => scene.count('select sum(rows_encrypted) from encryption_rollout.batches');

/** Does something to the server while a batch of phase 3 stands in its middle; calls wait until it is up again. */
function serverHarmed(
  name: string,
  done: string,
  harm: (server: OwnServer, scene: Scene) => Promise<void>,
): Fault {
  return {
    name,
    done: `${done} A batch of phase 3 stands in its middle.`,
    holds: 'The half batch is rolled back and done again, in the same execution.',
    server: [],
    async run(scene, server) {
      const gate = await gateInBatches(scene);
      const ending = await scene.rollout({
        before: () => server.up,
        instead: insteadOnce(isBatch(3), async (next) => {
          await gate.close();
          const batch = next();
          batch.catch(() => {});
          await gate.reached();
          server.up = harm(server, scene);
          await server.up;
          return batch;
        }),
      });
      expectCompleted(ending);
      expect(await recorded(scene)).toBe(380);
      return `completed; 380 rows counted once; ${listed(scene.failures)}`;
    },
  };
}

export const servers: readonly Fault[] = [
  serverHarmed(
    'PostgreSQL killed in the middle of a batch',
    'SIGKILL to every process of the server, which is started again.',
    async (server) => {
      await server.kill();
      await server.start();
    },
  ),
  serverHarmed(
    'Session’s process killed',
    'SIGKILL to the process of the batch’s session, upon which PostgreSQL ends every session and recovers.',
    async (server) => {
      const client = await server.connect();
      const { rows } = await client.query(
        "select pid from pg_stat_activity where application_name like 'encryption-rollout %' and state = 'active'",
      );
      server.killSession(rows[0].pid);
      await until('the server to recover', () =>
        server.connect().then(
          () => true,
          () => false,
        ),
      );
    },
  ),
  serverHarmed(
    'PostgreSQL restarted',
    'A fast shutdown, as for maintenance, and a start.',
    async (server) => {
      await server.stop();
      await server.start();
    },
  ),
  {
    name: 'Connection cut in the middle of a batch',
    done: 'The wire is cut without a word to either side; the server’s session lives on for a while.',
    holds: 'The half batch is rolled back and done again, never beside the orphan.',
    async run(scene) {
      const { host, port } = scene.world.databaseSecret as { host: string; port: number };
      const line = await wire(host, port);
      scene.repair(() => line.stop());
      scene.world.databaseSecret.port = line.port;
      const gate = await gateInBatches(scene);
      const ending = await scene.rollout({
        instead: insteadOnce(isBatch(3), async (next) => {
          await gate.close();
          const batch = next();
          batch.catch(() => {});
          await gate.reached();
          line.cut();
          setTimeout(() => gate.open(), 300);
          return batch;
        }),
      });
      expectCompleted(ending);
      expect(await recorded(scene)).toBe(380);
      return `completed; 380 rows counted once; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Answer to COMMIT lost',
    done: 'The wire swallows the server’s answer to the COMMIT of a batch: nobody knows whether it has happened.',
    holds: 'The retry finds the batch’s result and does not do it again.',
    bounded: true,
    async run(scene) {
      const { host, port } = scene.world.databaseSecret as { host: string; port: number };
      const line = await wire(host, port);
      scene.repair(() => line.stop());
      scene.world.databaseSecret.port = line.port;
      let swallowed = false;
      const ending = await scene.rollout({
        before: once(isBatch(3), () => {
          line.swallowCommit().then(() => {
            swallowed = true;
          });
        }),
      });
      expectCompleted(ending);
      expect(swallowed).toBe(true);
      expect(await recorded(scene)).toBe(380);
      return `completed; 380 rows counted once; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Read-only failover',
    done: 'From phase 3 on the address is that of a standby, for three calls.',
    holds: 'SQLSTATE 25006 is retried until there is a writer again.',
    server: ['wal_level=replica', 'max_wal_senders=4'],
    async run(scene, server) {
      const standby = await server.standby();
      scene.repair(() => standby.destroy());
      await until(
        'the standby to follow',
        async () =>
          (await scene.count("select count(*) from pg_stat_replication where state = 'streaming'")) === 1,
      );
      const writer = scene.world.databaseSecret.port;
      let calls = 0;
      const ending = await scene.rollout({
        before: async (call) => {
          if (!isBatch(3)(call)) return;
          calls += 1;
          if (calls === 1) scene.world.databaseSecret.port = Number(standby.url.port);
          if (calls === 4) scene.world.databaseSecret.port = writer;
        },
      });
      expectCompleted(ending);
      expect(scene.failures.get('TransientError')).toBeGreaterThan(0);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Replica promoted, its last transactions missing',
    done: 'A standby stops receiving before phase 3. The primary commits more batches and is killed; the standby is promoted and takes its place.',
    holds: 'Rows and records on the new primary agree; the lost batches are done again.',
    server: ['wal_level=replica', 'max_wal_senders=4'],
    async run(scene, server) {
      const heir = await server.standby();

      await until(
        'the standby to follow',
        async () =>
          (await scene.count("select count(*) from pg_stat_replication where state = 'streaming'")) === 1,
      );
      let before = 0;
      let lost = 0;
      const cutOff = once(isBatch(3), async () => {
        await until(
          'the standby to have everything',
          async () =>
            (await scene.count(
              'select count(*) from pg_stat_replication where replay_lsn = pg_current_wal_lsn()',
            )) === 1,
        );
        before = await recorded(scene);
        const { client } = scene.app;
        await client.query('alter role postgres noreplication');
        await client.query('select pg_terminate_backend(pid) from pg_stat_replication');
      });
      const promote = once(isBatch(5), async () => {
        lost = (await recorded(scene)) - before;
        await server.kill();
        await heir.promote();
        server.become(heir);
        scene.world.databaseSecret.port = Number(heir.url.port);
      });
      const first = scene.start({
        before: async (call) => {
          await server.up;
          await cutOff(call);
          await promote(call);
        },
      });
      const ending = await first.ending;
      expect(lost).toBeGreaterThan(0);
      return `${lost} encrypted rows were lost with the primary; ${ending.status === 'SUCCEEDED' ? 'completed' : 'stopped, then resumed'}`;
    },
  },
  {
    name: 'Disk full',
    done: 'From phase 3 on the file system of the table has no block left.',
    holds: 'No row is called poison: the rollout stops, and resumes when there is space.',
    server: [],
    async run(scene) {
      const disk = await smallDisk(scene.app.client);
      const ending = await scene.rollout({ before: once(isBatch(3), () => disk.fill()) });
      scene.repair(() => disk.empty());
      expect(ending.status).toBe('FAILED');
      const failed = await scene.count(
        "select count(*) from public.encryption_errors where error_type = 'encryption'",
      );
      expect(failed).toBe(0);
      return `stopped (${disk.kind}); no row recorded as failed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Connections used up',
    done: 'From phase 3 on others hold every connection that the server allows, for three calls.',
    holds: 'SQLSTATE 53300 is retried.',
    oneWriter: true,
    server: ['max_connections=25'],
    async run(scene, server) {
      const held: pg.Client[] = [];
      let calls = 0;
      const release = async () => {
        await Promise.all(held.splice(0).map((client) => client.end()));
      };
      scene.repair(release);
      const ending = await scene.rollout({
        before: async (call) => {
          if (!isBatch(3)(call)) return;
          calls += 1;
          if (calls === 1)
            await (async () => {
              for (;;) held.push(await server.connect());
            })().catch(() => {});
          if (calls === 4) await release();
        },
      });
      expectCompleted(ending);
      return `completed; ${listed(scene.failures)}`;
    },
  },
  {
    name: 'Database password rotated, the secret late',
    done: 'Before phase 3 the password changes; the secret follows after the execution has ended.',
    holds: 'The rollout ends at once, not after retries, and pages; the next one resumes.',
    oneWriter: true,
    server: [],
    async run(scene) {
      const right = scene.world.databaseSecret.password;
      let batches = 0;
      const ending = await scene.rollout({
        before: (call: Call) => {
          if (!isBatch(3)(call)) return;
          batches += 1;
          scene.world.databaseSecret.password = 'the old one';
        },
      });
      scene.repair(() => {
        scene.world.databaseSecret.password = right;
      });
      expect(ending).toMatchObject({ status: 'FAILED', error: 'RollbackFailed' });
      expect(batches).toBe(1);
      return `RollbackFailed, with the statement to run by hand; ${listed(scene.failures)}`;
    },
  },
];

/** A file system of a few megabytes under the table; where none can be mounted, its error is raised instead. */
async function smallDisk(client: pg.Client) {
  const directory = join(tmpdir(), `encryption-rollout-disk-${process.pid}`);
  await mkdir(directory, { recursive: true });
  try {
    await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=8m,mode=0777', 'tmpfs', directory]);
  } catch {
    return raisedDiskFull(client);
  }
  const { rows } = await client.query("select current_setting('data_directory') as directory");
  const { uid, gid } = await stat(rows[0].directory);
  await chown(directory, uid, gid);
  await client.query(`create tablespace small location '${directory}'`);
  await client.query('alter table public.appointments set tablespace small');
  const filler = join(directory, 'filler');
  return {
    kind: 'a full file system, SQLSTATE 53100',
    async fill() {
      const { bavail, bsize } = await statfs(directory);
      const file = await open(filler, 'w');
      await file.write(Buffer.alloc(bavail * bsize, 1)).catch(() => {});
      await file.close();
    },
    async empty() {
      await rm(filler, { force: true });
      await client.query('alter table public.appointments set tablespace pg_default');
      await client.query('drop tablespace small');
      await promisify(execFile)('umount', [directory]);
      await rm(directory, { recursive: true });
    },
  };
}

function raisedDiskFull(client: pg.Client) {
  return {
    kind: 'SQLSTATE 53100, raised by a trigger, as no file system could be mounted here',
    async fill() {
      await client.query(`
        create function public.disk_full() returns trigger language plpgsql as $$
        begin raise exception 'could not extend file' using errcode = '53100'; end $$;
        create trigger disk_full before update of pii_iv on public.appointments
          for each row execute function public.disk_full()`);
    },
    async empty() {
      await client.query('drop function public.disk_full() cascade');
    },
  };
}
