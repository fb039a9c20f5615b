import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import * as z from 'zod';
import { keyCheckValue, MASTER_KEY_BYTES } from '../../core/encryption/aead.ts';
import type { Keyring } from '../../core/encryption/verification.ts';
import { InvalidSettings, KeyUnavailable, listIssues, TransientError } from '../../core/errors.ts';

const client = new SecretsManagerClient();

/** The RDS convention for database secrets. */
const DatabaseSecret = z.object({
  host: z.string().min(1).optional(),
  port: z.coerce.number().int().default(5432),
  username: z.string().min(1),
  password: z.string(),
  dbname: z.string().min(1).optional(),
});
export type DatabaseSecret = z.infer<typeof DatabaseSecret>;

const KeyEntry = z.object({
  number: z.int().min(1).max(65_535),
  key: z
    .string()
    .regex(/^[0-9a-fA-F]*$/, 'expected hex digits')
    .refine((hex) => hex.length === MASTER_KEY_BYTES * 2, {
      error: ({ input }) =>
        `expected ${MASTER_KEY_BYTES * 2} hex digits (${MASTER_KEY_BYTES} bytes), found ${String(input).length}`,
    }),
});

/** `previous`: keys before the current one that rows may still be sealed with; for a rotation. */
const KeySecret = KeyEntry.extend({ previous: z.array(KeyEntry).default([]) })
  .refine(({ number, previous }) => previous.every((entry) => entry.number < number), {
    path: ['previous'],
    error: 'expected numbers below that of the current key',
  })
  .refine(({ previous }) => new Set(previous.map(({ number }) => number)).size === previous.length, {
    path: ['previous'],
    error: 'expected each number once',
  })
  .refine(
    ({ key, previous }) =>
      new Set([key, ...previous.map((entry) => entry.key)].map((hex) => hex.toLowerCase())).size ===
      previous.length + 1,
    { path: ['previous'], error: 'expected each key once' },
  );

export interface EncryptionKey {
  readonly number: number;
  /** 32 bytes */
  readonly key: Buffer;
  /** 8 bytes that identify the key without revealing it. */
  readonly checkValue: Buffer;
}

/** The current key, and with it those that rows may still be sealed with. */
export interface EncryptionKeys extends EncryptionKey {
  /** Before the current one, as the secret lists them. */
  readonly previous: readonly EncryptionKey[];
  readonly keyring: Keyring;
}

/** Value of a secret as JSON. Messages never carry any of it. */
async function readSecret(arn: string, stage?: 'AWSPENDING'): Promise<unknown> {
  const { SecretString } = await client.send(
    new GetSecretValueCommand({ SecretId: arn, ...(stage === undefined ? {} : { VersionStage: stage }) }),
  );
  return SecretString === undefined ? undefined : JSON.parse(SecretString);
}

/** The master keys. @throws KeyUnavailable, TransientError */
export async function readKey(arn: string): Promise<EncryptionKeys> {
  let value: unknown;
  try {
    value = await readSecret(arn);
  } catch (error) {
    throw classify(error, `The encryption key could not be read from the secret ${arn}`, KeyUnavailable);
  }
  const secret = KeySecret.safeParse(value);
  if (!secret.success)
    throw new KeyUnavailable(
      `The secret ${arn} holds no usable key: ${listIssues(secret.error.issues)}. Expected JSON {"number": 1, "key": "<64 hex digits>"}. Restore the version of the secret that this database is encrypted with.`,
    );
  return keysOf(secret.data);
}

function keysOf(secret: z.infer<typeof KeySecret>): EncryptionKeys {
  const current = encryptionKey(secret);
  const previous = secret.previous.map(encryptionKey);
  return {
    ...current,
    previous,
    keyring: new Map([current, ...previous].map(({ number, key }) => [number, key])),
  };
}

/** The keys of a text in the secret's shape; undefined when it is in another. */
export function parseKeys(text: string): EncryptionKeys | undefined {
  try {
    const secret = KeySecret.safeParse(JSON.parse(text));
    return secret.success ? keysOf(secret.data) : undefined;
  } catch {
    // The parser's message would quote it.
    return undefined;
  }
}

/** The secret's shape. */
export function keysText({
  number,
  key,
  previous,
}: Pick<EncryptionKeys, 'number' | 'key' | 'previous'>): string {
  const entry = (each: { number: number; key: Buffer }) => ({
    number: each.number,
    key: each.key.toString('hex'),
  });
  return `${JSON.stringify({
    ...entry({ number, key }),
    ...(previous.length === 0 ? {} : { previous: previous.map(entry) }),
  })}\n`;
}

function encryptionKey({ number, key: hex }: z.infer<typeof KeyEntry>): EncryptionKey {
  const key = Buffer.from(hex, 'hex');
  return { number, key, checkValue: keyCheckValue(key) };
}

/** Where the database is and how to log in. @throws InvalidSettings, TransientError */
export async function readDatabaseSecret(arn: string): Promise<DatabaseSecret> {
  let value: unknown;
  try {
    value = await readSecret(arn);
  } catch (error) {
    throw classify(error, `The database secret ${arn} could not be read`, InvalidSettings);
  }
  const secret = DatabaseSecret.safeParse(value);
  if (!secret.success)
    throw new InvalidSettings(
      `The database secret ${arn} is not in the form of RDS {host, port, username, password, dbname}: ${listIssues(secret.error.issues)}`,
    );
  return secret.data;
}

/** The passwords of the current version and of the one that a rotation is about to make current, as far as they can be read. */
export async function databasePasswords(arn: string): Promise<string[]> {
  const versions = await Promise.allSettled([readSecret(arn), readSecret(arn, 'AWSPENDING')]);
  return versions.flatMap((version) => {
    const secret = DatabaseSecret.safeParse(version.status === 'fulfilled' ? version.value : undefined);
    return secret.success ? [secret.data.password] : [];
  });
}

function classify(error: unknown, what: string, Final: new (message: string) => Error): Error {
  const { name = 'Error', $fault } = error as { name?: string; $fault?: string };
  // A SyntaxError is JSON.parse's, whose message would quote the secret.
  if (error instanceof SyntaxError) return new Final(`${what}: its value is not JSON`);
  // Of all that is asked of AWS this comes first, so a network without a way there shows here.
  if (name === 'TimeoutError')
    return new TransientError(
      `${what}: no connection to Secrets Manager. Expected a NAT gateway or VPC endpoints, and a security group that lets the functions out: docs/deploy.md#the-network.`,
    );
  if (name === 'ResourceNotFoundException')
    return new Final(
      `${what}: found no such secret in ${process.env.AWS_REGION}, where this is deployed. Expected the one that the configuration names, in the same region.`,
    );
  const transient = $fault !== 'client' || /Throttling|TooManyRequests|LimitExceeded/.test(name);
  return transient ? new TransientError(`${what}: ${name}`) : new Final(`${what}: ${name}`);
}
