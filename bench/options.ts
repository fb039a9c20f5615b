import { InvalidArgumentError } from 'commander';

/** Parser of an option: a whole number of at least this. */
export const atLeast = (least: number) => (text: string) => {
  const number = Number(text);
  if (!Number.isInteger(number) || number < least)
    throw new InvalidArgumentError(`a whole number of at least ${least} expected`);
  return number;
};
