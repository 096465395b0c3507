// Picture files: refused in a sentence where they can't be used, else decoded as training reads them.

// Return the ImageBitmap of a file, turned as EXIF says, with the colours that are stored.
export async function decode(file, name, maxPixels) {
  const { width, height } = await measure(file, name);
  if (width * height > maxPixels) {
    const most = Math.round(maxPixels / 1e6);
    throw new Error(`${name} has ${width}×${height} pixels, more than ${most} million: make it smaller.`);
  }
  const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
  return createImageBitmap(file, options).catch(() => {
    throw new Error(`${name} can't be read: it is damaged, or too large for this browser.`);
  });
}

// Return width and height, which an image element knows before it is decoded.
async function measure(file, name) {
  const image = new Image(), url = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = url;
    });
  } catch {
    throw new Error(`${name} is no picture that this browser can read, or it is damaged.`);
  } finally {
    URL.revokeObjectURL(url);
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}
