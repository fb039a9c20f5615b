/** How a function logs in to the database: with the password in a secret, or as itself, with a token that IAM lets it sign. */
import { InvalidSettings } from '../../core/errors.ts';
import { databasePasswords, readDatabaseSecret } from './secrets.ts';

/** As the deployment says: a secret in the form of RDS, whose address may be overridden, or whom to sign a token for. */
export type DatabaseLogin =
  | { readonly secretArn: string; readonly host?: string; readonly port?: number }
  | { readonly host: string; readonly port: number; readonly user: string };

export interface Credentials {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  /** Or a token, which is good for logging in for 15 minutes. Never logged. */
  readonly password: string;
  readonly dbname?: string | undefined;
}

/** @throws InvalidSettings, TransientError */
export async function credentialsOf(login: DatabaseLogin): Promise<Credentials> {
  if ('secretArn' in login) {
    const secret = await readDatabaseSecret(login.secretArn);
    const { host = secret.host, port = secret.port } = login;
    if (host === undefined)
      throw new InvalidSettings(
        `The database secret ${login.secretArn} has no host, like those that RDS manages by itself: set databaseHost.`,
      );
    return { ...secret, host, port };
  }
  const { host, port, user } = login;
  return { host, port, username: user, password: await tokenFor(host, port, user) };
}

/**
 * Whether the password that was refused is one of a secret that is being rotated: the database changes some seconds
 * before the secret's current version does. False as well when it cannot be asked.
 * https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_how.html
 */
export async function isBeingRotated(login: DatabaseLogin, refused: string): Promise<boolean> {
  if (!('secretArn' in login)) return false;
  const passwords = await databasePasswords(login.secretArn);
  return passwords.some((password) => password !== refused);
}

/**
 * A token for the database, signed with the function's own credentials; nothing is asked of AWS for it.
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
 */
async function tokenFor(hostname: string, port: number, username: string): Promise<string> {
  // Only where it is needed: every function carries it, few load it.
  const { Signer } = await import('@aws-sdk/rds-signer');
  try {
    return await new Signer({ hostname, port, username }).getAuthToken();
  } catch (error) {
    throw new InvalidSettings(
      `No token for the database user ${username} could be signed: ${(error as Error).name}. Expected the credentials of the function's role.`,
    );
  }
}
