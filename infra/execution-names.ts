import { JsonPath } from 'aws-cdk-lib/aws-stepfunctions';

/** Name of a child of the rollout, `<run>-<attempt>-<suffix>`: a UUID and some digits, well below the 80 characters allowed. */
export function childName(suffix: string, ...values: string[]): string {
  return JsonPath.format(
    `{}-{}-${suffix}`,
    JsonPath.stringAt('$.run.id'),
    JsonPath.stringAt('$.run.attempt'),
    ...values,
  );
}
