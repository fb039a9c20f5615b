import { expect, inject, onTestFinished, test, vi } from 'vitest';
import { connect, connectionOf } from '../../terminal/connection.ts';

test.each([
  ['postgresql://u:p@db.example.com/x', true],
  ['postgresql://u:p@10.0.0.7/x', true],
  ['postgresql://u:p@127.0.0.1.example.com/x', true],
  ['postgresql://u:p@db.example.com/x?sslmode=prefer', true],
  ['postgresql://u:p@db.example.com/x?sslmode=require', true],
  ['postgresql://u:p@db.example.com/x?sslmode=disable', false],
  ['postgresql://u:p@localhost/x', false],
  ['postgresql://u:p@127.0.0.1:5433/x', false],
  ['postgresql://u:p@[::1]/x', false],
  ['postgresql://u:p@localhost/x?sslmode=verify-full', true],
  ['postgresql://u@%2Fvar%2Frun%2Fpostgresql/x', false],
  ['postgresql:///x?host=/var/run/postgresql', false],
])('%s: TLS %s', (url, tls) => {
  expect(connectionOf(url)).toMatchObject({ database: 'x', tls });
});

test('a socket is a folder', () => {
  for (const url of [
    'postgresql://u@%2Fvar%2Frun%2Fpostgresql/x',
    'postgresql:///x?host=/var/run/postgresql',
  ])
    expect(connectionOf(url).host).toBe('/var/run/postgresql');
});

test('what stands in the query is heeded as libpq does, and what would not be is refused', () => {
  expect(
    connectionOf(
      'postgresql:///shop?host=/var/run/postgresql&port=5433&user=app&password=p%26q+r&connect_timeout=3',
    ),
  ).toMatchObject({
    host: '/var/run/postgresql',
    port: 5433,
    user: 'app',
    password: 'p&q+r',
    database: 'shop',
  });
  expect(connectionOf('postgresql://db.example.com?dbname=shop')).toMatchObject({
    database: 'shop',
    port: 5432,
  });
});

test.each([
  ['postgresql://u:seekrit@db/x?sslrootcert=ca.pem', /^Found sslrootcert in --database-url/],
  ['postgresql://u:seekrit@db/shop?dbname=other', /^Found dbname twice in --database-url/],
  ['postgresql://u:seekrit@localhost/shop?host=/cloudsql/one', /^Found host twice/],
  ['postgresql:///x?host=/tmp&port=seekrit', /a port in --database-url that is none/],
  ['mysql://u:seekrit@db/x', /of the kind mysql:, expected postgresql:/],
  ['u:seekrit@db', /expected postgresql:/],
  ['postgresql:///x', /without a host, expected postgresql:/],
  ['postgresql://u:seekrit/@db/x', /not a URL, .* In a password write %2F for \//],
  ['postgresql://u:100%seekrit@db/x', /a % .* that encodes nothing, expected %25/],
  [
    'postgresql://u:seekrit@db/x?sslmode=no-verify',
    /sslmode=no-verify .*expected one of disable, .*verify-full/,
  ],
])('%s is refused', (url, message) => {
  expect(() => connectionOf(url)).toThrow(message);
  expect(() => connectionOf(url)).not.toThrow(/seekrit/);
});

test('a server that speaks no TLS is told apart, with the way out', async () => {
  const url = new URL(inject('postgresUrl'));
  url.searchParams.set('sslmode', 'require');
  await expect(connect(connectionOf(url.href), 'test')).rejects.toThrow(
    /does not support SSL[\s\S]*with TLS and a certificate that verifies[\s\S]*\?sslmode=disable/,
  );
  url.searchParams.set('sslmode', 'disable');
  await (await connect(connectionOf(url.href), 'test')).end();
});

test('a password that the URL leaves out comes from the environment, where no list of processes shows it', async () => {
  const url = new URL(inject('postgresUrl'));
  vi.stubEnv('PGPASSWORD', decodeURIComponent(url.password));
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(connectionOf('postgresql://u:own@db/x')).toMatchObject({ password: 'own' });
  expect(connectionOf('postgresql://u@db/x')).toMatchObject({ password: process.env.PGPASSWORD });
  url.password = '';
  await (await connect(connectionOf(url.href), 'test')).end();
  vi.stubEnv('PGPASSWORD', 'another');
  await expect(connect(connectionOf(url.href), 'test')).rejects.toThrow(/password authentication failed/);
});
