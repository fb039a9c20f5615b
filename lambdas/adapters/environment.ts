import { InvalidSettings } from '../core/errors.ts';

/** The variable's value. @throws InvalidSettings with its name */
export function required(name: string): string {
  const value = process.env[name];
  if (!value)
    throw new InvalidSettings(`The environment variable ${name} is not set. Deploy the stack again.`);
  return value;
}
