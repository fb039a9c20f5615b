import * as z from 'zod';
import { fillSampleTable } from '../../adapters/postgres/migrations.ts';
import { handlerOf, required, unattachedSession } from '../step.ts';

/** Of the demonstration alone: creates public.appointments with fictitious people. A table with rows is left as it is. */
export const handler = handlerOf('SeedDemo', z.unknown(), (_input, { database }) =>
  database(unattachedSession, async (client) => {
    const rows = await fillSampleTable(client, Number(required('DEMO_ROWS')));
    return { outcome: rows === 0 ? 'LEFT_AS_IT_IS' : 'FILLED', rows };
  }),
);
