/** Public weights that `wfr weights pull` knows. Every file is checked against its SHA-256 before it is kept. */
export interface RegistryFile {
  name: string;
  bytes: number;
  sha256: string;
  /** Tried in turn. */
  urls: readonly string[];
}

export interface RegistryEntry {
  name: string;
  net: string;
  licence: string;
  note: string;
  files: readonly RegistryFile[];
}

const FACENET = 'https://raw.githubusercontent.com/timesler/facenet-pytorch/master/data';
const XIAOCCER = 'https://raw.githubusercontent.com/Xiaoccer/MobileFaceNet_Pytorch/master/model/best';

export const REGISTRY: readonly RegistryEntry[] = [
  {
    name: 'mtcnn',
    net: 'mtcnn',
    licence: 'MIT',
    note: 'Face detector, as published by facenet-pytorch.',
    files: [
      {
        name: 'pnet.pt',
        bytes: 28_570,
        sha256: 'a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f',
        urls: [`${FACENET}/pnet.pt`],
      },
      {
        name: 'rnet.pt',
        bytes: 403_147,
        sha256: 'bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86',
        urls: [`${FACENET}/rnet.pt`],
      },
      {
        name: 'onet.pt',
        bytes: 1_559_269,
        sha256: '165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d',
        urls: [`${FACENET}/onet.pt`],
      },
    ],
  },
  {
    name: 'mobilefacenet-xiaoccer',
    net: 'mobilefacenet',
    licence: 'none stated',
    note: 'Recogniser trained on CASIA-WebFace, a research data set: for research and evaluation.',
    files: [
      {
        name: '068.ckpt',
        bytes: 4_130_855,
        sha256: 'e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99',
        urls: [`${XIAOCCER}/068.ckpt`],
      },
    ],
  },
];
