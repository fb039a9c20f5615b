import * as z from 'zod';

/** A person's name; not the place for one, as config/example-input.json has it. */
export const Attester = z
  .string('expected the name of the person who attests')
  .trim()
  .min(1, 'expected the name of the person who attests')
  .regex(/^[^<>]*$/, "expected the name of the person who attests, in the sample's place");
