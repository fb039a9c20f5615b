import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { z } from 'zod';
import { keyCheckValue, MASTER_KEY_BYTES } from '../core/aead.ts';
import { InvalidSettings, KeyUnavailable, listIssues, TransientError } from '../core/errors.ts';

const client = new SecretsManagerClient();

/** The RDS convention for database secrets. */
const DatabaseSecret = z.object({
  host: z.string().min(1),
  port: z.coerce.number().int().default(5432),
  username: z.string().min(1),
  password: z.string(),
  dbname: z.string().min(1).optional(),
});
export type DatabaseSecret = z.infer<typeof DatabaseSecret>;

const KeySecret = z.object({
  number: z.int().min(1).max(65_535),
  key: z
    .string()
    .regex(/^[0-9a-fA-F]*$/, 'expected hex digits')
    .refine((hex) => hex.length === MASTER_KEY_BYTES * 2, {
      error: ({ input }) =>
        `expected ${MASTER_KEY_BYTES * 2} hex digits (${MASTER_KEY_BYTES} bytes), found ${String(input).length}`,
    }),
});

export interface EncryptionKey {
  readonly number: number;
  /** 32 bytes */
  readonly key: Buffer;
  /** 8 bytes that identify the key without revealing it. */
  readonly checkValue: Buffer;
}

/** Value of a secret as JSON. Messages never carry any of it. */
async function readSecret(arn: string): Promise<unknown> {
  const { SecretString } = await client.send(new GetSecretValueCommand({ SecretId: arn }));
  return SecretString === undefined ? undefined : JSON.parse(SecretString);
}

/** The master key. @throws KeyUnavailable, TransientError */
export async function readKey(arn: string): Promise<EncryptionKey> {
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
  const key = Buffer.from(secret.data.key, 'hex');
  return { number: secret.data.number, key, checkValue: keyCheckValue(key) };
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

function classify(error: unknown, what: string, Final: new (message: string) => Error): Error {
  const { name = 'Error', $fault } = error as { name?: string; $fault?: string };
  // A SyntaxError is JSON.parse's, whose message would quote the secret.
  if (error instanceof SyntaxError) return new Final(`${what}: its value is not JSON`);
  const transient = $fault !== 'client' || /Throttling|TooManyRequests|LimitExceeded/.test(name);
  return transient ? new TransientError(`${what}: ${name}`) : new Final(`${what}: ${name}`);
}
