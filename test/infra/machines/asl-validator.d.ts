/** The package brings no types along. */
declare module 'asl-validator' {
  export default function validate(definition: object): {
    readonly isValid: boolean;
    errorsText(separator: string): string;
  };
}
